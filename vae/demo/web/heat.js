/** Maps of how far two pictures differ, from black over purple and orange to pale yellow. */

const WORST = 0.5; // of the range of a pixel: an error that is as bright as the map gets
const COLOURS = [
  [0, 0, 4],
  [87, 16, 110],
  [188, 55, 84],
  [249, 142, 9],
  [252, 255, 164],
];

/**
 * @param {ImageBitmap} a
 * @param {ImageBitmap} b of the same size
 * @returns {ImageData}
 */
export function heatMap(a, b) {
  const { width, height } = a;
  const [x, y] = [a, b].map((picture) => {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    return context.getImageData(0, 0, width, height).data;
  });
  const heat = new ImageData(width, height);
  for (let index = 0; index < x.length; index += 4) {
    const off = Math.max(...[0, 1, 2].map((channel) => Math.abs(x[index + channel] - y[index + channel]))) / 255;
    const place = Math.min(1, off / WORST) * (COLOURS.length - 1);
    const [low, high] = [COLOURS[Math.floor(place)], COLOURS[Math.ceil(place)]];
    for (let channel = 0; channel < 3; channel++)
      heat.data[index + channel] = low[channel] + (place % 1) * (high[channel] - low[channel]);
    heat.data[index + 3] = 255;
  }
  return heat;
}
