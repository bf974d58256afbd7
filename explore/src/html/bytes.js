"use strict";
// Bytes side by side. They come as hexadecimal digits, two for each byte.

const byteAt = (digits, at) => digits.slice(2 * at, 2 * at + 2);

/**
 * Rows of bytes against each other, in words of eight: `rows` are [label, digits, tone of what differs from the first].
 * `base` is the address or offset of the first byte, `label` writes it.
 */
function byteRows(rows, base, label) {
  const length = Math.max(...rows.map(row => row[1].length / 2));
  const words = [];
  for (let from = 0; from < length; from += 8) {
    const places = [...Array(8).keys()].map(at => from + at);
    const isOther = (row, at) => row !== rows[0] && byteAt(row[1], at) !== "" && byteAt(row[1], at) !== ".."
      && byteAt(rows[0][1], at) !== ".." && byteAt(row[1], at) !== byteAt(rows[0][1], at);
    const differs = at => rows[1] !== undefined && isOther(rows[1], at);
    const cell = (row, at) => {
      const how = row === rows[0] ? (differs(at) ? "good" : "") : (isOther(row, at) ? row[2] : "");
      return el("span", { class: how || false }, byteAt(row[1], at) || "  ");
    };
    const lines = rows.map(row => [el("b", {}, row[0]), ...places.map(at => cell(row, at))]);
    const same = !places.some(differs);
    words.push(el("div", { class: "word" + (same ? " same" : "") },
      el("span", { class: "offset" }, label(base + from)), ...lines.flat()));
  }
  const equal = words.filter(word => word.classList.contains("same")).length;
  const note = el("span", { class: "dim narrow" }, equal ? `${some(equal, "equal word")} not shown` : "");
  return el("div", { class: "bytes", role: "group" }, words, note);
}

/** The bytes of the file that a finding is about. */
function contentRows(content) {
  const rows = [["expected", content.expected, ""], ["found", content.found, "bad"]];
  content.also.slice(0, 2).forEach(also => rows.push(["or", also, ""]));
  content.before.slice(-2).forEach(before => rows.push(["before", before, ""]));
  return el("div", {},
    el("h3", {}, `The file ${content.file}, from byte ${hex(content.at)}`),
    el("p", { class: "dim" }, `Wrong from byte ${hex(content.wrong)} on, ${some(content.bytes, "byte")} at least.`
      + " “expected” is what has to be there, “before” what was there once and no longer may be."),
    byteRows(rows, content.at, hex));
}

/** The lines of persistent memory that a finding lacks. */
function lineRows(lines, all) {
  const one = line => el("div", {},
    el("p", { class: "dim" }, `Line ${hex(line.address)}, lost ${line.events.length === 1 ? "store" : "stores"}: event `
      + line.events.join(", ")),
    byteRows([["stored", line.stored, ""], ["on media", line.found, "bad"]], line.address, hex));
  const title = all > lines.length ? `Lost lines: ${lines.length} of ${count(all)}` : `Lost ${all === 1 ? "line" : "lines"}`;
  return el("div", {}, el("h3", {}, title), growing(lines, 2, one).node);
}
