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
  const above = box.score !== null;
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
    applyScore();
  },
};
byId("previous").addEventListener("click", () => closer.go(closer.index - 1));
byId("next").addEventListener("click", () => closer.go(closer.index + 1));
byId("close").addEventListener("click", () => closer.dialog.close());
closer.dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") closer.go(closer.index - 1);
  if (event.key === "ArrowRight") closer.go(closer.index + 1);
});

// The slider hides detections of images below a score; mistakes are shown whatever their score.
const slider = byId("score");
function applyScore() {
  const least = Number(slider.value);
  byId("score-value").textContent = least.toFixed(2);
  const places = [byId("image-gallery")];
  if (Object.values(data.images).includes(closer.pictures)) places.push(closer.dialog);
  for (const place of places)
    for (const box of place.querySelectorAll("[data-score]"))
      box.style.display = Number(box.dataset.score) >= least ? "" : "none";
  const at = Math.min(Math.round(least * 100), 100);
  const percent = (name) => (100 * data.overall[name][at]).toFixed(1);
  byId("at-threshold").textContent =
    `all images: precision ${percent("precision")} %, recall ${percent("recall")} %, F1 ${percent("f1")} %`;
}
slider.value = Math.max(data.threshold, 0.05);
slider.addEventListener("input", applyScore);
gallery(data.images, byId("image-tabs"), byId("image-gallery"), applyScore);
gallery(data.mistakes, byId("mistake-tabs"), byId("mistake-gallery"), () => {});
applyScore();

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

// A chosen row brings out the curves of its class.
const classTable = byId("class-table");
function choose(row) {
  const again = row.classList.contains("chosen");
  for (const chosen of document.querySelectorAll(".chosen")) chosen.classList.remove("chosen");
  byId("curves").classList.toggle("choosing", !again);
  if (again) return;
  for (const item of [row, ...document.querySelectorAll(`.curve.class-${row.dataset.class}`)]) item.classList.add("chosen");
}
classTable.tBodies[0].addEventListener("click", (event) => choose(event.target.closest("tr")));
classTable.tBodies[0].addEventListener("keydown", (event) => { if (event.key === "Enter") choose(event.target); });
