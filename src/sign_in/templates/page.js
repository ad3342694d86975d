"use strict";
// The page works without this script. It shows passwords on request, and moves on when the sign-in does.
const passwordShown = (field, button, shown) => {
  field.type = shown ? "text" : "password";
  button.firstChild.data = shown ? "Hide" : "Show";
};
for (const button of document.querySelectorAll("button[data-shows]")) {
  const field = document.getElementById(button.dataset.shows);
  button.hidden = false;
  button.addEventListener("click", () => passwordShown(field, button, field.type === "password"));
  // Browsers keep what was typed into a text field.
  field.form.addEventListener("submit", () => passwordShown(field, button, false));
}
for (const line of document.querySelectorAll("[data-scripted]")) line.hidden = false;

const start = performance.now();
for (const place of document.querySelectorAll("[data-seconds]")) {
  const seconds = Number(place.dataset.seconds);
  setInterval(() => {
    const left = Math.max(0, seconds - (performance.now() - start) / 1000);
    const words = left > 90 ? `${Math.ceil(left / 60)} minutes` : `${Math.ceil(left / 10) * 10} seconds`;
    if (place.textContent !== words) place.textContent = words;
  }, 1000);
}

const { page, state } = document.body.dataset;
let failures = 0;
const look = async () => {
  try {
    const answer = await fetch(`${page}/state`, { cache: "no-store" });
    if ((await answer.text()) !== state) return location.replace(page);
    failures = 0;
  } catch {
    failures += 1;
  }
  document.getElementById("gone").hidden = failures < 3;
  setTimeout(look, 2000);
};
// A page of a hosted server changes by its forms alone.
if (page) setTimeout(look, 2000);
