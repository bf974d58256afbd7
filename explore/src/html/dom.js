"use strict";
// Everything that a guest said reaches the page as text, never as markup.

/** Makes an element; `children` are nodes or text. */
function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter(child => child !== undefined && child !== null && child !== ""));
  return node;
}

const hex = number => "0x" + number.toString(16);
/** A number with its digits in groups; text of digits stays exact. */
const count = number => String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");
const some = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

const VIOLATIONS = new Set(["lost", "stale", "not-atomic", "corrupt", "guest-crash"]);
/** The colour of a class of finding. */
const tone = name => (VIOLATIONS.has(name) ? "bad" : "warn");
const badge = (name, how) => el("span", { class: "badge " + (how || tone(name)) }, name);

/** A table of rows of cells; numbers stand on the right. */
function table(heads, rows) {
  const number = cell => typeof cell === "number";
  const cells = row => row.map(cell => el("td", number(cell) ? { class: "number" } : {}, number(cell) ? count(cell) : cell));
  const right = at => rows.length && number(rows[0][at]);
  const head = heads.map((text, at) => el("th", { scope: "col", class: right(at) ? "number" : false }, text));
  return el("div", { class: "scroll", tabindex: 0 },
    el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows.map(row => el("tr", {}, cells(row))))));
}

/** A list that grows on demand: `make` makes the node of an item. */
function growing(items, size, make) {
  const list = el("div");
  const more = el("button", { onclick: () => grow() });
  let shown = 0;
  function grow(upto) {
    const end = Math.min(items.length, Math.max(upto || 0, shown + size));
    list.append(...items.slice(shown, end).map(make));
    shown = end;
    more.textContent = `Show ${Math.min(size, items.length - shown)} more of ${count(items.length - shown)}`;
    more.hidden = shown >= items.length;
  }
  grow();
  return { node: el("div", {}, list, more), list, showTo: at => { while (shown <= at && shown < items.length) grow(at + 1); } };
}

/** A command line with a button that copies it. */
function command(text) {
  const button = el("button", { onclick: async () => {
    try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
    catch { getSelection().selectAllChildren(code); button.textContent = "Selected"; }
  } }, "Copy");
  const code = el("code", { tabindex: 0 }, text);
  return el("div", { class: "command" }, code, button);
}
