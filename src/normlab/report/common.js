"use strict";
// What the scripts of a page share.

const element = (tag, content = "", attributes = {}) => {
  const made = document.createElement(tag);
  made.textContent = content;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};

const button = (content, act, label = "") => {
  const made = element("button", content, {type: "button", ...(label && {"aria-label": label})});
  made.addEventListener("click", act);
  return made;
};

const save = (name, address) => element("a", "", {download: name, href: address}).click();
