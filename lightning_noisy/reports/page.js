"use strict";
const list = document.getElementById("suspects");
if (list) {
  const cards = Array.from(list.children);
  const only = document.getElementById("class");
  const sort = document.getElementById("sort");
  const count = document.getElementById("count");
  const show = () => {
    const key = sort.value;
    const order = (a, b) =>
      (key === "rank" ? 0 : a.dataset[key].localeCompare(b.dataset[key])) || a.dataset.rank - b.dataset.rank;
    cards.sort(order).forEach((card) => {
      card.hidden = only.value !== "" && card.dataset.given !== only.value;
      list.append(card);
    });
    const seen = cards.filter((card) => !card.hidden).length;
    count.textContent = seen + " shown";
  };
  only.addEventListener("change", show);
  sort.addEventListener("change", show);
  show();
}
document.addEventListener("keydown", (event) => {
  const card = event.target.closest ? event.target.closest(".card") : null;
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!card || !step) return;
  let next = card;
  do next = step > 0 ? next.nextElementSibling : next.previousElementSibling;
  while (next && next.hidden);
  if (next) {
    next.focus();
    event.preventDefault();
  }
});
