"use strict";
// Draws the charts of a page, and saves them as files.

// Vega-Lite 6.1 looks for words in the cell under the pointer; the cell's datum is the point that has them.
const patch = (vega) => {
  for (const mark of vega.marks)
    if (mark.encode.update?.isVoronoi) {
      const tooltip = mark.encode.update.tooltip;
      tooltip.signal = tooltip.signal.replace(/(?<!datum\.)datum\[/g, "datum.datum[");
    }
  return vega;
};

const save = (name, address) => {
  const link = document.createElement("a");
  link.download = name;
  link.href = address;
  link.click();
};

const button = (text, label, act) => {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
};

// A file knows no variables of this page: it gets the colours of the light page, on white.
const asFile = async (view) => {
  const light = [...document.styleSheets[0].cssRules].find((rule) => rule.selectorText === ":root").style;
  const drawn = (await view.toSVG()).replace(/var\((--\w+)\)/g, (_, name) => light.getPropertyValue(name).trim());
  return drawn.replace(/(<svg[^>]*>)/, '$1<rect width="100%" height="100%" fill="#ffffff"/>');
};

const asPicture = (svg) =>
  new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [3 * image.width, 3 * image.height]; // 300 dots an inch at the size of the page
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      resolve(canvas.toDataURL("image/png"));
    };
    image.onerror = reject;
    image.src = "data:image/svg+xml," + encodeURIComponent(svg);
  });

const savers = (chart, view) => {
  const row = document.createElement("div");
  row.className = "save";
  const label = (kind) => `Save the chart ${chart.name} as ${kind}`;
  row.append(
    button("SVG", label("SVG"), async () =>
      save(chart.name + ".svg", "data:image/svg+xml," + encodeURIComponent(await asFile(view)))),
    button("PNG", label("PNG"), async () => save(chart.name + ".png", await asPicture(await asFile(view)))),
  );
  return row;
};

charts.forEach(async (chart, number) => {
  const place = document.getElementById("chart" + number);
  if (!place) return;
  const options = {renderer: "svg", actions: false, tooltip: {theme: "page"}, patch};
  const {view} = await vegaEmbed(place, chart.drawing, options);
  place.parentElement.after(savers(chart, view));
});
