"use strict";
// Makes the tables of a page, and shows in which keys two runs differ.

class Runs extends Grid {
  constructor(place, given) {
    super(place, given);
    this.chosen = [];
    this.told = element("div", "", {role: "status", class: "told"});
    this.table.parentElement.before(this.told);
    this.tell();
  }

  head() {
    super.head();
    this.table.tHead.rows[0].prepend(element("th", "compare", {scope: "col", class: "key"}));
  }

  row(row) {
    const line = super.row(row);
    const box = element("input", "", {type: "checkbox", "aria-label": `Compare run ${text(row[0])}`});
    box.checked = this.chosen?.includes(row.at);
    box.addEventListener("change", () => this.choose(row.at, box.checked));
    const cell = element("td", "", {class: "key"});
    cell.append(box);
    line.prepend(cell);
    return line;
  }

  // Of three the one that was chosen first gives way.
  choose(at, wanted) {
    this.chosen = [...this.chosen.filter((other) => other !== at), ...(wanted ? [at] : [])].slice(-2);
    this.draw();
    this.tell();
    this.table.querySelector(`[aria-label="Compare run ${CSS.escape(text(this.given.rows[at][0]))}"]`)?.focus();
  }

  tell() {
    const [first, second] = this.chosen;
    if (second === undefined) {
      this.told.replaceChildren(element("p", first === undefined ? "Tick two runs to see in which keys of their " +
        "configurations they differ." : `Run ${text(this.given.rows[first][0])} and …`, {class: "fine"}));
      return;
    }
    const of = (at) => Object.values(this.given.configs).map(({values, of}) => values[of[at]]);
    const [one, other] = [of(first), of(second)];
    const lines = Object.keys(this.given.configs).map((key, at) => [key, one[at], other[at]]);
    this.show(lines.filter(([, a, b]) => a !== b), ...[first, second].map((at) => text(this.given.rows[at][0])));
  }

  show(lines, first, second) {
    const said = `Runs ${first} and ${second} ` + (lines.length === 0 ? "have the same configuration." :
      `differ in ${lines.length} ${lines.length === 1 ? "key" : "keys"} of their configurations.`);
    const table = element("table");
    const line = (tag, cells) => {
      const row = element("tr");
      row.append(...cells.map((cell) => element(tag, cell, {class: "key", ...(tag === "th" && {scope: "col"})})));
      return row;
    };
    table.createTHead().append(line("th", ["key", `run ${first}`, `run ${second}`]));
    table.createTBody().append(...lines.map((cells) => line("td", cells.map((value) => value || "–"))));
    const wide = element("div", "", {class: "wide"});
    wide.append(table);
    this.told.replaceChildren(element("p", said), ...(lines.length ? [wide] : []));
    fold(wide);
  }
}

for (const place of document.querySelectorAll(".grid")) {
  const given = JSON.parse(place.querySelector("script").textContent);
  new (given.configs ? Runs : Grid)(place, given);
  place.hidden = false;
}
