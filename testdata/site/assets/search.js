// Finds articles by title on the archive page.
document.addEventListener("DOMContentLoaded", () => {
  const list = document.querySelector(".articles");
  if (!list) return;
  const box = document.createElement("input");
  box.type = "search";
  box.placeholder = "Find an article";
  list.before(box);
  box.addEventListener("input", () => {
    const wanted = box.value.trim().toLowerCase();
    for (const item of list.children) {
      item.hidden = wanted !== "" && !item.textContent.toLowerCase().includes(wanted);
    }
  });
});
