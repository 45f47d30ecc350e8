"use strict";
// Keeps the page up to date: fetches it again, and takes over what changed. Without this script a reload does it.
const SECONDS = 10;
const said = document.getElementById("refreshed");

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/", {headers: {Accept: "text/html"}, redirect: "manual", cache: "no-store"});
    if (answer.type === "opaqueredirect" || answer.status === 401) { location.reload(); return; }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = fresh.getElementById("live");
    if (!next) throw new Error("the server answered " + answer.status);
    takeOver(next);
    document.title = fresh.title;
    said.textContent = "";
  } catch (error) {
    said.textContent = "This page isn't up to date: " + error.message;
  }
}

function takeOver(next) {
  const live = document.getElementById("live");
  const focused = document.activeElement;
  const place = live.contains(focused) ? focused.getAttribute("href") : null;
  live.replaceWith(document.adoptNode(next));
  if (place) document.querySelector('#live a[href="' + CSS.escape(place) + '"]')?.focus();
}

setInterval(refresh, SECONDS * 1000);
document.addEventListener("visibilitychange", refresh);
