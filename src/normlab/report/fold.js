"use strict";
// Folds tables that are wider than the page, as on a phone.

// Cells of a table that is too narrow stand below each other, each beside its head; roles keep it a table to a reader.
const fold = (wide) => {
  const table = wide.querySelector("table:not(.matrix)");
  if (!table || wide.clientWidth === 0) return;
  table.classList.remove("folded");
  if (wide.scrollWidth <= wide.clientWidth + 1) return;
  table.classList.add("folded");
  const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent);
  const roles = {table: "table", thead: "rowgroup", tbody: "rowgroup", tr: "row", td: "cell", th: "columnheader"};
  for (const part of [table, ...table.querySelectorAll("thead, tbody, tr, td, th")])
    part.setAttribute("role", part.scope === "row" ? "rowheader" : roles[part.localName]);
  for (const row of table.tBodies[0].rows)
    [...row.cells].forEach((cell, column) => (cell.dataset.head = heads[column]));
};

const folding = new ResizeObserver((entries) => {
  for (const {target} of entries)
    if (target.dataset.width !== String(target.clientWidth)) {
      target.dataset.width = target.clientWidth;
      fold(target);
    }
});
document.querySelectorAll(".wide").forEach((wide) => folding.observe(wide));
