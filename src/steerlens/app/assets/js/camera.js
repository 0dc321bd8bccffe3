/** A picture by the camera of the browser, if it offers one. */

import { el } from "../../../report/assets/js/core/elements.js";

/** @param {(picture: Blob) => void} take */
export function camera(take) {
  if (!navigator.mediaDevices?.getUserMedia) return null;
  const video = el("video", { autoplay: true, playsinline: true, "aria-label": "Camera" });
  video.muted = true;
  const said = el("p", { class: "small", role: "status" });
  const shoot = el("button", { type: "button", id: "camera-take" }, "Take the picture");
  const dialog = el("dialog", { class: "dialog", id: "camera", "aria-label": "Camera" }, video, said, shoot, " ",
    el("button", { type: "button", onclick: () => dialog.close() }, "Cancel"));
  document.body.append(dialog);
  const stop = () => {
    for (const track of /** @type {MediaStream | null} */ (video.srcObject)?.getTracks() ?? []) track.stop();
    video.srcObject = null;
  };
  dialog.addEventListener("close", stop);
  shoot.addEventListener("click", () => {
    const canvas = el("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d")?.drawImage(video, 0, 0);
    canvas.toBlob((picture) => {
      if (picture) take(picture);
      dialog.close();
    }, "image/png");
  });
  const open = async () => {
    dialog.showModal();
    shoot.disabled = true;
    said.textContent = "";
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
      if (!dialog.open) return stop();
      shoot.disabled = false;
    } catch (error) {
      said.textContent = `The camera cannot be used: ${error instanceof Error ? error.message : error}.`;
    }
  };
  return el("button", { type: "button", id: "camera-open", onclick: open }, "Camera");
}
