// @ts-check
/** How many messages wait, in the icon of the tab, and in that of the app where it is installed. */

import { byId } from "./dom.js";

/** Pixels of the icon. */
const SIZE = 64;
/** The largest number that can still be read. */
const COUNT_MAX = 99;

const link = /** @type {HTMLLinkElement} */ (byId("icon"));
const plain = link.getAttribute("href") ?? "";
const image = new Image();
let shown = 0;

/** @param {number} count of messages; 0 takes the number away */
export function showBadge(count) {
  if (count === shown) return;
  shown = count;
  draw();
  if (!("setAppBadge" in navigator)) return;
  (count ? navigator.setAppBadge(count) : navigator.clearAppBadge()).catch(() => {}); // not installed
}

function draw() {
  if (!shown) {
    link.href = plain;
    return;
  }
  if (!image.complete || !image.naturalWidth) {
    image.onload = draw;
    image.src = plain;
    return;
  }
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIZE;
  const context = canvas.getContext("2d");
  if (!context) return;
  const text = String(Math.min(shown, COUNT_MAX));
  const radius = SIZE * 0.34;
  const [x, y] = [SIZE - radius, SIZE - radius];
  context.drawImage(image, 0, 0, SIZE, SIZE);
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = "#b3261e";
  context.fill();
  context.fillStyle = "#fff";
  context.font = `bold ${text.length > 1 ? 30 : 38}px sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(text, x, y + 2);
  link.href = canvas.toDataURL();
}
