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
  const row = element("div", "", {class: "save"});
  const label = (kind) => `Save the chart ${chart.name} as ${kind}`;
  row.append(
    button("SVG", async () =>
      save(chart.name + ".svg", "data:image/svg+xml," + encodeURIComponent(await asFile(view))), label("SVG")),
    button("PNG", async () => save(chart.name + ".png", await asPicture(await asFile(view))), label("PNG")),
  );
  return row;
};

// Paper is narrower than a screen: charts are drawn anew for it, so that their words keep their size.
const views = [];
const redraw = (onPaper) => () => {
  document.documentElement.classList.toggle("paper", onPaper);
  if (onPaper) document.querySelectorAll("details.fine").forEach((notes) => (notes.open = true));
  views.forEach(({view, place}) => view.width(place.clientWidth).run());
};
addEventListener("beforeprint", redraw(true));
addEventListener("afterprint", redraw(false));

// One after the other, so that the page can be read and scrolled meanwhile.
const draw = async (drawings) => {
  for (const [number, chart] of drawings.entries()) {
    const place = document.getElementById("chart" + number);
    if (!place) continue;
    const options = {renderer: "svg", actions: false, tooltip: {theme: "page"}, patch};
    const {view} = await vegaEmbed(place, chart.drawing, options);
    views.push({view, place});
    place.parentElement.after(savers(chart, view));
    await new Promise((go) => setTimeout(go));
  }
};
draw(JSON.parse(document.getElementById("charts").textContent));
