"use strict";
(() => {
  const pictures = JSON.parse(document.getElementById("thumbnails").textContent);
  for (const image of document.querySelectorAll("img[data-picture]")) image.src = pictures[image.dataset.picture];
  const list = document.getElementById("heads");
  const heads = [...list.children];
  const select = document.getElementById("sort");
  select.addEventListener("change", () => {
    const key = select.value;
    list.replaceChildren(...heads.toSorted((a, b) => a.dataset[key] - b.dataset[key]));
  });
})();
