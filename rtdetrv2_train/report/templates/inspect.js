for (const place of document.querySelectorAll("[data-finding]")) {
  const pictures = data.findings[Number(place.dataset.finding)];
  place.classList.toggle("pairs", pictures.some((picture) => picture.width > 1.8 * picture.height));
  place.append(...pictures.map((picture, index) => {
    const figure = drawPicture(picture);
    figure.addEventListener("click", () => closer.open(pictures, index));
    figure.addEventListener("keydown", (event) => { if (event.key === "Enter") closer.open(pictures, index); });
    return figure;
  }));
}
