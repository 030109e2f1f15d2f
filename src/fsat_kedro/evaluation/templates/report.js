"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const playerOf = (card) => card.querySelector("audio");

// One sound at a time, with a line that runs through its spectrogram.
for (const audio of all("audio")) {
  const spectrogram = audio.previousElementSibling;
  const line = spectrogram.lastElementChild;
  const follow = () => {
    line.style.left = `${(100 * audio.currentTime) / (audio.duration || 1)}%`;
    if (!audio.paused) requestAnimationFrame(follow);
  };
  const button = () => all(`.hear[data-example="${audio.parentElement.id}"]`);
  audio.addEventListener("play", () => {
    for (const other of all("audio")) if (other !== audio) other.pause();
    for (const hear of button()) hear.setAttribute("aria-pressed", "true");
    spectrogram.classList.add("played");
    follow();
  });
  audio.addEventListener("pause", () => {
    for (const hear of button()) hear.setAttribute("aria-pressed", "false");
  });
  audio.addEventListener("seeked", follow);
  spectrogram.addEventListener("click", (event) => {
    const { left, width } = spectrogram.getBoundingClientRect();
    audio.currentTime = ((event.clientX - left) / width) * (audio.duration || 0);
    audio.play();
  });
}
for (const hear of all(".hear")) {
  hear.setAttribute("aria-pressed", "false");
  hear.addEventListener("click", () => {
    const audio = playerOf(document.getElementById(hear.dataset.example));
    if (audio.paused) {
      audio.currentTime = 0;
      audio.play();
    } else audio.pause();
  });
}

const form = document.querySelector(".filters");
if (form) {
  const cards = all(".clip");
  const filters = all("select", form).filter((select) => select.name !== "sort");
  const order = {
    confidence: (a, b) => b.confidence - a.confidence,
    doubt: (a, b) => b.doubt - a.doubt,
    seconds: (a, b) => b.seconds - a.seconds,
    label: (a, b) => a.label.localeCompare(b.label),
    tag: (a, b) => a.tag.localeCompare(b.tag),
    fname: (a, b) => a.fname.localeCompare(b.fname),
  };
  const show = () => {
    for (const card of cards) {
      card.hidden = filters.some(({ name, value }) => value && card.dataset[name] !== value);
      if (card.hidden) playerOf(card).pause();
    }
    const by = order[form.elements.sort.value];
    // Those alike stay in the order of confidence that they came in.
    const sorted = [...cards].sort((a, b) => by(a.dataset, b.dataset));
    sorted.forEach((card) => card.parentElement.append(card));
    const shown = cards.filter((card) => !card.hidden).length;
    form.querySelector("output").value = `${shown} of ${cards.length} clips`;
  };
  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(show));
  for (const button of all(".pairs button")) {
    button.addEventListener("click", () => {
      form.reset();
      for (const select of filters) select.value = button.dataset[select.name] ?? "";
      show();
      form.scrollIntoView();
      form.elements.label.focus({ preventScroll: true });
    });
  }

  // Verdicts are kept by what the clip is and was tagged with, so that another run asks anew.
  const save = document.getElementById("save");
  const keyOf = ({ split, fname, label, tag }) =>
    "verdict " + JSON.stringify([document.title, split, fname, label, tag]);
  const verdictOf = (card) => card.querySelector(".judge input:checked")?.value;
  const judged = () => cards.filter(verdictOf);
  for (const card of cards) {
    let kept = null;
    try {
      kept = localStorage.getItem(keyOf(card.dataset));
    } catch {
      // A browser that keeps nothing of local files.
    }
    for (const input of all(".judge input", card)) {
      input.checked = input.value === kept;
      input.addEventListener("change", () => {
        save.disabled = false;
        try {
          localStorage.setItem(keyOf(card.dataset), input.value);
        } catch {
          // As above.
        }
      });
    }
  }
  save.disabled = judged().length === 0;
  save.addEventListener("click", () => {
    const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
    const rows = judged().map((card) => {
      const { split, fname, label, tag, confidence } = card.dataset;
      return [split, fname, label, tag, confidence, verdictOf(card)].map(quoted).join(",");
    });
    const table = ["clips,fname,label,tag,probability,wrong", ...rows, ""].join("\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([table], { type: "text/csv" }));
    link.download = "verdicts.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });
}
