"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const pictures = JSON.parse($("thumbnails").textContent);
  const list = $("heads");
  const heads = [...list.children];

  // Thumbnails of a head are decoded once it is opened: a model may have hundreds of heads.
  const open = (head) => head.querySelectorAll("img[data-picture]:not([src])").forEach((image) => { image.src = pictures[image.dataset.picture]; });
  heads.forEach((head) => head.addEventListener("toggle", () => { if (head.open) open(head); }));

  const sort = () => {
    const key = $("sort").value;
    list.replaceChildren(...heads.toSorted((a, b) => a.dataset[key] - b.dataset[key]));
  };

  const words = new Map(heads.map((head) => [head, head.textContent.toLowerCase()]));
  const find = () => {
    const sought = $("find").value.trim().toLowerCase();
    // A head's name is found exactly: "l1h1" is not "l1h10".
    const named = heads.filter((head) => head.id.toLowerCase() === sought);
    const shown = named.length ? named : heads.filter((head) => words.get(head).includes(sought));
    heads.forEach((head) => { head.hidden = !shown.includes(head); });
    $("count").textContent = sought ? `${shown.length} of ${heads.length} heads` : "";
  };

  const unfold = () => {
    const all = heads.every((head) => head.open);
    heads.forEach((head) => { head.open = !all; });
    $("unfold").textContent = all ? "Open all" : "Close all";
  };

  const follow = () => {
    const head = heads.find((one) => `#${one.id}` === location.hash);
    if (!head) return;
    head.hidden = false;
    head.open = true;
    open(head);
    head.scrollIntoView();
  };

  $("sort").addEventListener("change", sort);
  $("find").addEventListener("input", find);
  $("unfold").addEventListener("click", unfold);
  window.addEventListener("hashchange", follow);
  // A link to the head that the address names already fires no hashchange.
  document.querySelector(".heads-map").addEventListener("click", () => setTimeout(follow));
  window.addEventListener("beforeprint", () => heads.forEach((head) => { head.open = true; open(head); }));
  follow();
})();
