"use strict";
// Lets a reader sort, filter and extend a table, and save what it shows.

const FIRST = 25; // rows that are shown at first
const STEP = 100; // rows that one press adds
const LIMITS = {"<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b};

const text = (cell) => (typeof cell === "string" ? cell : cell.map(([name]) => name).join(" "));
const number = (cell) => parseFloat(text(cell).replaceAll(",", "").replace("−", "-"));

// A number, where the column has numbers; else words in which 9 comes before 10. What is missing comes last.
const comparing = (column, words, turned) => (a, b) => {
  const [x, y] = words ? [text(a[column]), text(b[column])] : [number(a[column]), number(b[column])];
  if (words) return turned * x.localeCompare(y, undefined, {numeric: true});
  return isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : turned * (x - y);
};

// Every word must be in the row; "seconds<60" and "norm=batch" ask a column.
const matching = (heads, asked) => {
  const tests = asked.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const [, name, sign, value] = word.match(/^(.+?)(<=|>=|<|>|=)(.+)$/) ?? [];
    const column = heads.findIndex(([head]) => head.toLowerCase() === name);
    if (column < 0) return (row) => row.some((cell) => text(cell).toLowerCase().includes(word));
    if (sign === "=") return (row) => text(row[column]).toLowerCase() === value;
    return (row) => LIMITS[sign](number(row[column]), parseFloat(value));
  });
  return (row) => tests.every((test) => test(row));
};

const asMarkdown = (lines) => {
  const line = (cells) => "| " + cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ") + " |\n";
  return line(lines[0]) + line(lines[0].map(() => "---")) + lines.slice(1).map(line).join("");
};

const TEX = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$",
  "−": "$-$", "–": "--", "★": "$\\star$", "≈": "$\\approx$", "†": "$\\dagger$", "\u00a0": "~"};
const asLatex = (lines, heads) => {
  const plain = (cell) => cell.replace(/[\\~^±−–★≈†\u00a0]|[&%$#_{}]/g, (sign) => TEX[sign] ?? "\\" + sign);
  const line = (cells) => cells.map(plain).join(" & ") + " \\\\\n";
  const columns = heads.map(([, kind]) => (["key", "mark"].includes(kind) ? "l" : "r")).join("");
  return `\\begin{tabular}{${columns}}\n\\toprule\n${line(lines[0])}\\midrule\n${lines.slice(1).map(line).join("")}` +
    "\\bottomrule\n\\end{tabular}\n"; // \usepackage{booktabs}
};

class Grid {
  constructor(place, given) {
    this.place = place;
    this.given = given;
    this.given.rows.forEach((row, at) => (row.at = at));
    this.table = place.querySelector("table");
    this.best = new Set(this.given.best);
    this.words = this.given.heads.map(([, kind], column) =>
      kind === "mark" || (kind === "key" && this.given.rows.some((row) => isNaN(Number(text(row[column]) || 0)))));
    this.shown = FIRST;
    this.sorted = [-1, 1];
    this.head();
    this.tools();
    this.draw();
  }

  head() {
    [...this.table.tHead.rows[0].cells].forEach((cell, column) => {
      const press = button("", () => this.sort(column));
      press.className = "sort";
      press.append(...cell.childNodes);
      cell.append(press);
    });
  }

  tools() {
    const bar = element("div", "", {class: "tools"});
    const label = element("label", "Filter ");
    this.filter = element("input", "", {type: "search", autocomplete: "off", spellcheck: "false"});
    this.filter.placeholder = this.example();
    this.filter.addEventListener("input", () => ((this.shown = FIRST), this.draw()));
    label.append(this.filter);
    this.count = element("span", "", {role: "status"});
    const file = (kind, ending, made) => button(kind, () =>
      save(`${this.given.name}.${ending}`, "data:text/plain;charset=utf-8," + encodeURIComponent(made())),
      `Save the ${this.given.what} shown as ${kind}`);
    const savers = element("span", "", {class: "savers"});
    savers.append(file("Markdown", "md", () => asMarkdown(this.lines())),
      file("LaTeX", "tex", () => asLatex(this.lines(), this.given.heads)));
    bar.append(label, this.count, savers);
    this.place.prepend(bar);
    this.more = button("", () => ((this.shown += STEP), this.draw()));
    this.place.append(this.more);
  }

  example() {
    const column = this.given.heads.findIndex(([, kind]) => kind === "key");
    const value = column < 0 || !this.given.rows.length ? "" : text(this.given.rows[0][column]);
    return value && !/\s/.test(value) ? `${this.given.heads[column][0]}=${value}` : "";
  }

  // A first press sorts upwards, a second one downwards, a third one takes the order of the page again.
  sort(column) {
    const [old, turned] = this.sorted;
    this.sorted = old !== column ? [column, 1] : turned === 1 ? [column, -1] : [-1, 1];
    this.draw();
  }

  rows() {
    const [column, turned] = this.sorted;
    const kept = this.given.rows.filter(matching(this.given.heads, this.filter.value));
    return column < 0 ? kept : kept.sort(comparing(column, this.words[column], turned));
  }

  lines() {
    return [this.given.heads.map(([name, kind]) => (kind === "mark" ? "" : name)),
      ...this.rows().map((row) => row.map(text))];
  }

  draw() {
    const rows = this.rows();
    const [column, turned] = this.sorted;
    [...this.table.tHead.rows[0].cells].forEach((cell, at) =>
      cell.setAttribute("aria-sort", at !== column ? "none" : turned === 1 ? "ascending" : "descending"));
    this.table.tBodies[0].replaceChildren(...rows.slice(0, this.shown).map((row) => this.row(row)));
    const drawn = Math.min(rows.length, this.shown);
    this.count.textContent = `${drawn} of ${this.given.rows.length} ${this.given.what}`;
    this.more.hidden = rows.length <= this.shown;
    this.more.textContent = `Show ${Math.min(STEP, rows.length - drawn)} more`;
    fold(this.table.parentElement);
  }

  row(row) {
    const line = element("tr", "", this.best.has(row.at) ? {class: "best"} : {});
    row.forEach((content, column) => {
      const kind = this.given.heads[column][1];
      const cell = element("td", typeof content === "string" ? content : "", kind ? {class: kind} : {});
      if (typeof content !== "string")
        for (const [name, address] of content) cell.append(element("a", name, {href: address}), " ");
      line.append(cell);
    });
    return line;
  }
}
