package main

import "strings"

var vocabulary = strings.Fields(`raft log rope lash mast sail tide swell wind drift coral reef island harbour anchor float
timber balsa bamboo palm thatch deck steer oar paddle compass star horizon dawn dusk night watch crew captain cook fish
shark whale turtle gull storm squall rain thunder calm current east west north south warm cold deep shallow salt water
bread coconut lantern knot splice canvas patch mend carry wander follow cross reach leave return remember measure chart
long short slow quick quiet heavy light bright broken whole distant nearby ancient patient stubborn gentle wild the a
our their every another under over beyond against toward between through without before after while until because`)

const stylesheet = `:root { color-scheme: light dark; --sea: #0b3954; --foam: #f0e6c8; --rust: #c8783c; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 44rem; padding: 1rem; font: 1.05rem/1.6 Georgia, serif; }
header { display: flex; justify-content: space-between; align-items: center; border-bottom: 2px solid var(--sea); }
header a { color: inherit; text-decoration: none; margin-right: .75rem; }
h1 { line-height: 1.15; }
a { color: var(--rust); }
.byline, footer, time { font-size: .85rem; opacity: .75; }
.articles { list-style: none; padding: 0; }
.articles li { display: flex; justify-content: space-between; gap: 1rem; padding: .2rem 0; }
footer { margin-top: 3rem; border-top: 1px solid var(--sea); padding-top: .5rem; }
input[type=search] { width: 100%; padding: .5rem; font: inherit; }
@media (prefers-color-scheme: dark) { body { background: #06202f; color: var(--foam); } }
`

const script = `// Finds articles by title on the archive page.
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
`

const logo = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 32" width="48" height="32" role="img" aria-label="A raft">
<path d="M2 26h44l-3 4H5z" fill="#c8783c"/>
<path d="M24 2v22M24 4c9 2 14 8 15 16H24z" fill="#f0e6c8" stroke="#0b3954" stroke-width="1.5"/>
<path d="M22 6v14H10C11 14 15 8 22 6z" fill="#5aa9cd"/>
</svg>
`
