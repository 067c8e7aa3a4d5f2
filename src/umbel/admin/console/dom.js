// Elements without a framework: h() makes them, rows() keeps a list of keyed elements in step with data.

const SVG = "http://www.w3.org/2000/svg";

function set(element, name, value) {
  if (value === undefined || value === null || value === false) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else element.setAttribute(name, value === true ? "" : String(value));
}

/** Make an element: h("a", {href: "#/tree", class: "x", onclick: f}, "text", child, ...). Text is never parsed as HTML. */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) set(element, name, value);
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** As h(), for SVG. */
export function s(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes ?? {})) set(element, name, value);
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set the text of an element only if it differs: untouched nodes keep the user's selection. */
export function text(element, value) {
  const wanted = String(value);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/**
 * Bring the children of `parent` in step with `items`, by key: elements are made once, kept, moved and removed.
 * The focus stays, because an element that stays in its place is not touched.
 *
 * @param {Element} parent
 * @param {Array} items
 * @param {(item) => string} keyOf
 * @param {(item) => Element} make
 * @param {(element, item) => void} update
 */
export function rows(parent, items, keyOf, make, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let element = known.get(key);
    if (element) known.delete(key);
    else {
      element = make(item);
      element.dataset.key = key;
    }
    update(element, item);
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
  for (const child of known.values()) child.remove();
}

/** A table from column names and rows of cells; a cell is a text or an element. Numbers are aligned to the right. */
export function table(caption, columns, cells) {
  return h("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": caption},
    h("table", {},
      h("caption", {class: "unseen"}, caption),
      h("thead", {}, h("tr", {}, columns.map((column) => h("th", {scope: "col"}, column)))),
      h("tbody", {}, cells.map((row) => h("tr", {}, row.map((cell) =>
        h("td", {class: typeof cell === "number" ? "number" : null}, cell instanceof Node ? cell : String(cell ?? ""))))))));
}
