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
closer.shown = applyScore;
slider.value = Math.max(data.threshold, 0.05);
slider.addEventListener("input", applyScore);
gallery(data.images, byId("image-tabs"), byId("image-gallery"), applyScore);
gallery(data.mistakes, byId("mistake-tabs"), byId("mistake-gallery"), () => {});
applyScore();

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
