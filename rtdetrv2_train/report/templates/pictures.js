"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// A box with its name above it, or within it where there is no room; letters are sized for the picture as shown.
function drawBox(box, width, height, letters) {
  const [x, y, w, h] = box.box;
  const kind = ["truth", "crowd", "right"].includes(box.kind) ? box.kind : "wrong";
  const group = element("g", { class: `box ${kind}` });
  if (box.score !== null) group.dataset.score = box.score;
  const size = Math.max(width, height) / letters;
  const name = data.classes[box.label].name;
  const label = box.score === null ? name : `${name} ${box.score.toFixed(2)}`;
  const above = box.score !== null || box.kind === "right";
  const place = above ? Math.max(y - size * 0.25, size * 0.9) : Math.min(y + h + size * 0.95, height - size * 0.2);
  const text = element("text", { x: Math.min(Math.max(x, 1), width - size * 0.5 * label.length), y: place,
    "font-size": size, "stroke-width": size / 5 }, label);
  group.append(element("title", {}, `${label} (${box.kind})`),
    element("rect", { x, y, width: Math.max(w, 0), height: Math.max(h, 0) }), text);
  return group;
}

function drawPicture(picture) {
  const figure = document.createElement("figure");
  figure.className = "picture";
  figure.tabIndex = 0;
  const letters = picture.boxes.length > 2 ? 30 : 15;  // across the picture, about
  const svg = element("svg", { viewBox: `0 0 ${picture.width} ${picture.height}` },
    element("image", { href: picture.source, width: picture.width, height: picture.height, preserveAspectRatio: "none" }),
    ...picture.boxes.slice().reverse().map((box) => drawBox(box, picture.width, picture.height, letters)));
  const caption = document.createElement("figcaption");
  caption.textContent = picture.title;
  figure.append(svg, caption);
  return figure;
}

// Tabs over a gallery; `shown` is called with each newly filled gallery.
function gallery(groups, tabs, place, shown) {
  const show = (name) => {
    for (const tab of tabs.children) tab.setAttribute("aria-selected", tab.dataset.name === name);
    place.replaceChildren(...groups[name].map((picture, index) => {
      const figure = drawPicture(picture);
      const open = () => closer.open(groups[name], index);
      figure.addEventListener("click", open);
      figure.addEventListener("keydown", (event) => { if (event.key === "Enter") open(); });
      return figure;
    }));
    shown();
  };
  for (const [name, pictures] of Object.entries(groups)) {
    const tab = document.createElement("button");
    tab.textContent = `${name} (${pictures.length})`;
    tab.dataset.name = name;
    tab.setAttribute("role", "tab");
    tab.addEventListener("click", () => show(name));
    tabs.append(tab);
  }
  const first = Object.keys(groups)[0];
  if (first) show(first);
  else place.textContent = "None.";
}

const closer = {
  dialog: byId("closer"), pictures: [], index: 0,
  open(pictures, index) {
    this.pictures = pictures;
    this.go(index);
    this.dialog.showModal();
  },
  go(index) {
    this.index = (index + this.pictures.length) % this.pictures.length;
    const picture = this.pictures[this.index];
    const drawn = drawPicture(picture);
    this.dialog.querySelector("figure").replaceChildren(drawn.querySelector("svg"));
    this.dialog.querySelector("p").textContent = `${this.index + 1} of ${this.pictures.length}: ${picture.title}`;
    this.shown();
  },
  shown() {},  // called with each picture
};
byId("previous").addEventListener("click", () => closer.go(closer.index - 1));
byId("next").addEventListener("click", () => closer.go(closer.index + 1));
byId("close").addEventListener("click", () => closer.dialog.close());
closer.dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") closer.go(closer.index - 1);
  if (event.key === "ArrowRight") closer.go(closer.index + 1);
});

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.addEventListener("click", () => {
    const cellValue = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const isNumber = table.tBodies[0].rows[0]?.cells[column].dataset.value !== undefined;
    const first = isNumber ? "descending" : "ascending";
    const other = isNumber ? "ascending" : "descending";
    const direction = heading.getAttribute("aria-sort") === first ? other : first;
    for (const any of headings) any.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const compare = (a, b) => isNumber ? cellValue(a) - cellValue(b) : cellValue(a).localeCompare(cellValue(b));
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => sign * compare(a, b)));
  }));
}
