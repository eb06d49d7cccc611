// A small map without libraries: tiles, outlines and a graticule on one canvas, in Web Mercator.
'use strict';

const SIDE = 256, LEAST_ZOOM = 0, MOST_ZOOM = 24, MOST_LOADS = 4, MOST_KEPT = 500, MOST_TRIES = 4, TINY = 9;
const parts = `${location.pathname.replace(/\/$/, '')}/`;
const element = id => document.getElementById(id);
const canvas = element('map'), pen = canvas.getContext('2d');
const view = {x: 0.5, y: 0.5, zoom: 2};
const tiles = new Map(), loading = new Set();
let data = null, layer = 0, wanted = [], frame = 0, width = 1, height = 1, place = null, asked = 0;

const part = name => fetch(`${parts}${name}${location.search}`, {headers: {Accept: '*/*'}});
const worldX = longitude => (longitude + 180) / 360;
const worldY = latitude => {
  const radians = Math.max(-85.06, Math.min(85.06, latitude)) * Math.PI / 180;
  return (1 - Math.log(Math.tan(radians) + 1 / Math.cos(radians)) / Math.PI) / 2;
};
const longitudeOf = x => ((x * 360 - 180 + 180) % 360 + 360) % 360 - 180;
const latitudeOf = y => Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180 / Math.PI;
const scale = () => SIDE * 2 ** view.zoom;
const screenX = x => (x - view.x) * scale() + width / 2;
const screenY = y => (y - view.y) * scale() + height / 2;
const ink = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const number = value => value === 0 ? '0' : Number(value.toPrecision(3)).toLocaleString('en');

// What is seen.

function panelRoom() {
  const box = element('panel').getBoundingClientRect();
  return box.width < window.innerWidth * 0.6 ? box.right : 0;
}

function fit() {
  const [west, south, east, north] = data.box;
  const left = worldX(west), right = worldX(east < west ? east + 360 : east), top = worldY(north), bottom = worldY(south);
  const room = panelRoom(), edge = Math.min(56, width / 12);
  const across = Math.max(1, width - room - 2 * edge), down = Math.max(1, height - 2 * edge);
  const fitting = Math.log2(Math.min(across / Math.max(right - left, 1e-9), down / Math.max(bottom - top, 1e-9)) / SIDE);
  view.zoom = Math.max(LEAST_ZOOM, Math.min(18, fitting));
  view.x = (left + right) / 2 - room / 2 / scale();
  view.y = (top + bottom) / 2;
  redraw();
}

function zoomBy(steps, x = (width + panelRoom()) / 2, y = height / 2) {
  const before = scale();
  const zoom = Math.max(LEAST_ZOOM, Math.min(MOST_ZOOM - 1, view.zoom + steps));
  const [atX, atY] = [view.x + (x - width / 2) / before, view.y + (y - height / 2) / before];
  view.zoom = zoom;
  view.x = atX - (x - width / 2) / scale();
  view.y = atY - (y - height / 2) / scale();
  redraw();
}

function moveBy(x, y) {
  view.x += x / scale();
  view.y = Math.max(0, Math.min(1, view.y + y / scale()));
  redraw();
}

// Drawing.

function redraw() {
  if (!frame) frame = requestAnimationFrame(draw);
}

function draw() {
  frame = 0;
  const ratio = window.devicePixelRatio || 1;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = ink('--paper');
  pen.fillRect(0, 0, width, height);
  drawGraticule();
  if (!data) return;
  drawTiles();
  if (element('edges').checked) drawEdges();
  if (canvas.matches(':focus-visible')) drawCross();
  drawScale();
  if (place) showPlace();
}

function drawGraticule() {
  const degrees = 360 / scale() * 140;
  const steps = [30, 20, 10, 5, 2, 1];
  let step = steps.filter(each => each >= degrees).pop() || 30;
  for (let power = 0.1; degrees <= power * 5 && power > 1e-6; power /= 10)
    step = [5, 2, 1].map(each => each * power).filter(each => each >= degrees).pop() || step;
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const [west, east] = [0, width].map(x => (view.x + (x - width / 2) / scale()) * 360 - 180);
  const [north, south] = [0, height].map(y => latitudeOf(view.y + (y - height / 2) / scale()));
  pen.strokeStyle = ink('--grid');
  pen.fillStyle = ink('--grid-ink');
  pen.lineWidth = 1;
  pen.font = '11px system-ui, sans-serif';
  pen.textBaseline = 'bottom';
  const room = panelRoom();
  for (let at = Math.ceil(west / step); at * step <= east; at++) {
    const x = Math.round(screenX(worldX(at * step))) + 0.5;
    line(x, 0, x, height);
    if (x > room + 8) pen.fillText(named(longitudeOf(worldX(at * step)), 'E', 'W', digits), x + 4, height - 6);
  }
  for (let at = Math.ceil(Math.max(south, -85) / step); at * step <= Math.min(north, 85); at++) {
    const y = Math.round(screenY(worldY(at * step))) + 0.5;
    line(0, y, width, y);
    pen.fillText(named(at * step, 'N', 'S', digits), room + 12, y - 3);
  }
}

function named(degrees, above, below, digits) {
  const text = Math.abs(degrees).toFixed(digits);
  return Number(text) === 0 ? '0°' : `${text}°${degrees < 0 ? below : above}`;
}

function line(x1, y1, x2, y2) {
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
  pen.stroke();
}

function drawTiles() {
  const zoom = Math.max(0, Math.min(MOST_ZOOM, Math.round(view.zoom))), count = 2 ** zoom, size = scale() / count;
  const first = Math.floor((view.x - width / 2 / scale()) * count), last = Math.floor((view.x + width / 2 / scale()) * count);
  const top = Math.max(0, Math.floor((view.y - height / 2 / scale()) * count));
  const bottom = Math.min(count - 1, Math.floor((view.y + height / 2 / scale()) * count));
  wanted = [];
  pen.save();
  pen.globalAlpha = element('opacity').value / 100;
  for (let row = top; row <= bottom; row++) {
    for (let column = first; column <= last; column++) {
      const turned = (column % count + count) % count;
      const key = [layer, zoom, turned, row].join('-');
      const [x, y] = [screenX(column / count), screenY(row / count)];
      const [right, below] = [screenX((column + 1) / count), screenY((row + 1) / count)].map(Math.round);
      wanted.push({key, far: Math.hypot(x + size / 2 - width / 2, y + size / 2 - height / 2)});
      if (!paint(key, 0, 0, 1, Math.round(x), Math.round(y), right, below)) paintParent(zoom, turned, row, x, y, right, below);
    }
  }
  pen.restore();
  wanted.sort((one, other) => one.far - other.far);
  load();
}

function paint(key, fromX, fromY, share, x, y, right, below) {
  const image = tiles.get(key)?.image;
  if (!image) return false;
  pen.imageSmoothingEnabled = (right - x) < SIDE * share;
  pen.drawImage(image, fromX * image.width, fromY * image.height, share * image.width, share * image.height, x, y, right - x, below - y);
  return true;
}

function paintParent(zoom, column, row, x, y, right, below) {
  for (let up = 1; up <= Math.min(4, zoom); up++) {
    const share = 2 ** -up, [above, beside] = [Math.floor(row * share), Math.floor(column * share)];
    const key = [layer, zoom - up, beside, above].join('-');
    if (paint(key, column * share - beside, row * share - above, share, Math.round(x), Math.round(y), right, below)) return;
  }
}

function drawEdges() {
  const turns = [Math.floor(view.x - width / 2 / scale()), Math.floor(view.x + width / 2 / scale())];
  pen.strokeStyle = ink('--edge');
  pen.lineWidth = 1.25;
  pen.lineJoin = 'round';
  for (const footprint of data.footprints) {
    if (footprint.layer !== layer) continue;
    for (let turn = turns[0] - 1; turn <= turns[1] + 1; turn++) drawFootprint(footprint, turn);
  }
}

function drawFootprint(footprint, turn) {
  const [west, south, east, north] = footprint.box;
  const left = screenX(worldX(west) + turn), right = screenX(worldX(east < west ? east + 360 : east) + turn);
  const top = screenY(worldY(north)), bottom = screenY(worldY(south));
  if (right < 0 || left > width || bottom < 0 || top > height) return;
  pen.beginPath();
  if (Math.max(right - left, bottom - top) < TINY) {
    // Too small for an outline: a ring, so that it is found.
    pen.arc((left + right) / 2, (top + bottom) / 2, TINY, 0, 2 * Math.PI);
  } else {
    for (const ring of footprint.rings) {
      // The part beyond the antimeridian is next to the other.
      const turned = east < west && ring[0][0] < 0 && Math.max(...ring.map(point => point[0])) <= east + 1e-6 ? turn + 1 : turn;
      ring.forEach(([longitude, latitude], index) => {
        const at = [screenX(worldX(longitude) + turned), screenY(worldY(latitude))];
        if (index) pen.lineTo(...at); else pen.moveTo(...at);
      });
    }
  }
  pen.stroke();
}

function drawCross() {
  const [x, y] = [Math.round((width + panelRoom()) / 2) + 0.5, Math.round(height / 2) + 0.5];
  pen.strokeStyle = ink('--accent');
  pen.lineWidth = 2;
  line(x - 9, y, x - 3, y);
  line(x + 3, y, x + 9, y);
  line(x, y - 9, x, y - 3);
  line(x, y + 3, x, y + 9);
}

function drawScale() {
  const perPixel = 40075016.686 / scale() * Math.cos(latitudeOf(view.y) * Math.PI / 180);
  const power = 10 ** Math.floor(Math.log10(perPixel * 120));
  const length = [5, 2, 1].map(each => each * power).find(each => each <= perPixel * 120);
  const bar = element('scale').firstElementChild;
  bar.style.width = `${length / perPixel}px`;
  bar.textContent = length >= 1000 ? `${(length / 1000).toLocaleString('en')} km` : `${length.toLocaleString('en')} m`;
}

// Loading.

function load() {
  const left = wanted.filter(({key}) => !tiles.get(key)?.image && !tiles.get(key)?.ended && !loading.has(key));
  document.documentElement.dataset.tiles = left.length + loading.size ? 'loading' : 'loaded';
  for (const {key} of left.slice(0, MOST_LOADS - loading.size)) loadTile(key);
  noteTiles();
}

async function loadTile(key) {
  loading.add(key);
  const tries = (tiles.get(key)?.tries || 0) + 1;
  let found = {tries, ended: tries >= MOST_TRIES};
  let pause = 0;
  try {
    const answer = await part(`tile-${key}.png`);
    if (answer.ok) {
      found = {image: await createImageBitmap(await answer.blob()), leftOut: Number(answer.headers.get('X-Left-Out'))};
    } else {
      const isBusy = answer.status === 429;
      pause = 1000 * (Number(answer.headers.get('Retry-After')) || 1);
      found = {tries: isBusy ? tries - 1 : tries, ended: !isBusy && (answer.status < 500 || tries >= MOST_TRIES)};
    }
  } catch {
    pause = 1000;
  }
  if (pause) await new Promise(done => setTimeout(done, pause));
  tiles.delete(key);
  tiles.set(key, found);
  loading.delete(key);
  for (const old of tiles.keys()) {
    if (tiles.size <= MOST_KEPT) break;
    tiles.get(old).image?.close();
    tiles.delete(old);
  }
  redraw();
}

function noteTiles() {
  const seen = wanted.map(({key}) => tiles.get(key)).filter(Boolean);
  const unread = seen.filter(tile => tile.ended).length, leftOut = Math.max(0, ...seen.map(tile => tile.leftOut || 0));
  const notes = [...data.notes];
  if (leftOut) notes.push('Not every raster is drawn here: zoom in. If that does not help, a file cannot be read.');
  if (unread) notes.push('Parts of the map could not be read.');
  const list = element('notes');
  if (list.dataset.shown === JSON.stringify(notes)) return;
  list.dataset.shown = JSON.stringify(notes);
  list.replaceChildren(...notes.map(text => Object.assign(document.createElement('li'), {textContent: text})));
}

// Values at a place.

async function readPlace(x, y) {
  const at = {x: view.x + (x - width / 2) / scale(), y: view.y + (y - height / 2) / scale()};
  const mine = ++asked;
  place = {...at, rows: null};
  redraw();
  let rows = [];
  try {
    const answer = await part(`values-${longitudeOf(at.x).toFixed(7)},${latitudeOf(at.y).toFixed(7)}.json`);
    if (!answer.ok) throw new Error(answer.status === 429 ? 'busy: ask again' : 'could not be read');
    const found = await answer.json();
    rows = found.values.map(each => [
      each.name, each.value === null ? 'no data' : `${number(each.value)} ${each.unit || ''}`.trim(), each.layer]);
    if (found.left_out) rows.push([`and ${found.left_out} more`, '', -1]);
    if (!rows.length) rows = [['no raster here', '', -1]];
  } catch (error) {
    rows = [[error.message, '', -1]];
  }
  if (mine !== asked) return;
  place = {...at, rows};
  const table = document.createElement('table');
  for (const [name, value, of] of rows) {
    const row = table.insertRow();
    row.insertCell().textContent = of >= 0 && data.layers.length > 1 ? `${name} · ${data.layers[of].name}` : name;
    row.insertCell().textContent = value;
  }
  const words = document.createElement('p');
  words.textContent = `${latitudeOf(at.y).toFixed(5)}, ${longitudeOf(at.x).toFixed(5)}`;
  element('place').replaceChildren(table, words);
  redraw();
}

function showPlace() {
  const box = element('place');
  if (!place.rows) {
    box.textContent = 'reading…';
  }
  box.hidden = false;
  const x = screenX(place.x), y = screenY(place.y);
  const left = Math.max(8, Math.min(width - box.offsetWidth - 8, x + 14));
  const top = Math.max(8, Math.min(height - box.offsetHeight - 8, y + 14));
  box.style.transform = `translate(${left}px, ${top}px)`;
  pen.strokeStyle = ink('--accent');
  pen.lineWidth = 2.5;
  pen.beginPath();
  pen.arc(x, y, 5, 0, 2 * Math.PI);
  pen.stroke();
}

function hidePlace() {
  asked++;
  place = null;
  element('place').hidden = true;
  redraw();
}

// Hands.

function listen() {
  const pointers = new Map();
  let moved = 0;
  const spread = () => {
    const [one, other] = [...pointers.values()];
    return {x: (one.x + other.x) / 2, y: (one.y + other.y) / 2, far: Math.hypot(one.x - other.x, one.y - other.y)};
  };
  canvas.addEventListener('pointerdown', event => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, {x: event.offsetX, y: event.offsetY});
    moved = pointers.size > 1 ? 100 : 0;
  });
  canvas.addEventListener('pointermove', event => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const old = pointers.size === 2 ? spread() : null;
    pointers.set(event.pointerId, {x: event.offsetX, y: event.offsetY});
    if (old) {
      const now = spread();
      moveBy(old.x - now.x, old.y - now.y);
      zoomBy(Math.log2(Math.max(1, now.far) / Math.max(1, old.far)), now.x, now.y);
    } else {
      moved += Math.hypot(event.offsetX - before.x, event.offsetY - before.y);
      canvas.classList.toggle('moves', moved > 4);
      if (moved > 4) moveBy(before.x - event.offsetX, before.y - event.offsetY);
    }
  });
  const up = event => {
    if (pointers.delete(event.pointerId) && !pointers.size) {
      canvas.classList.remove('moves');
      if (event.type === 'pointerup' && moved <= 4) readPlace(event.offsetX, event.offsetY);
    }
  };
  canvas.addEventListener('pointerup', up);
  canvas.addEventListener('pointercancel', up);
  canvas.addEventListener('wheel', event => {
    event.preventDefault();
    const lines = event.deltaMode ? 33 : 1;
    zoomBy(Math.max(-1, Math.min(1, -event.deltaY * lines / 300)), event.offsetX, event.offsetY);
  }, {passive: false});
  canvas.addEventListener('dblclick', event => zoomBy(1, event.offsetX, event.offsetY));
  canvas.addEventListener('keydown', onKey);
  canvas.addEventListener('focus', redraw);
  canvas.addEventListener('blur', redraw);
  element('in').addEventListener('click', () => zoomBy(1));
  element('out').addEventListener('click', () => zoomBy(-1));
  element('fit').addEventListener('click', fit);
  element('edges').addEventListener('change', redraw);
  element('opacity').addEventListener('input', event => {
    element('percent').textContent = `${event.target.value} %`;
    redraw();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
}

function onKey(event) {
  const step = event.shiftKey ? 240 : 80;
  const actions = {
    ArrowLeft: () => moveBy(-step, 0), ArrowRight: () => moveBy(step, 0), ArrowUp: () => moveBy(0, -step),
    ArrowDown: () => moveBy(0, step), '+': () => zoomBy(1), '=': () => zoomBy(1), '-': () => zoomBy(-1), '0': fit,
    Enter: () => readPlace((width + panelRoom()) / 2, height / 2), Escape: hidePlace,
  };
  if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  actions[event.key]();
}

function resize() {
  const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
  [width, height] = [Math.max(1, box.width), Math.max(1, box.height)];
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  redraw();
}

// The panel.

function showPanel() {
  document.title = data.title;
  element('title').textContent = data.title;
  const rasters = data.layers.reduce((sum, each) => sum + each.rasters, 0);
  element('about').textContent = rasters === 1 ? '1 raster' : `${rasters.toLocaleString('en')} rasters`;
  if (!rasters) element('about').textContent = 'Nothing was converted.';
  element('layers').replaceChildren(...data.layers.map((each, index) => {
    const label = Object.assign(document.createElement('label'), {className: 'layer'});
    const input = Object.assign(document.createElement('input'), {type: 'radio', name: 'layer', value: index, checked: !index});
    input.addEventListener('change', () => { layer = index; redraw(); });
    const depths = each.flooded_area_km2 ? `${number(each.flooded_area_km2)} km² flooded` : 'no water';
    label.append(input, Object.assign(document.createElement('b'), {textContent: each.name}),
      Object.assign(document.createElement('span'), {textContent: each.flooded_area_km2 === null ? 'classes' : depths}));
    return label;
  }));
  element('legend').hidden = !data.deepest;
  element('unit').textContent = data.unit || 'no unit';
  element('half').textContent = number(data.deepest / 2);
  element('deepest').textContent = number(data.deepest);
  element('ramp').setAttribute('aria-label', `From light blue, 0, to dark blue, ${number(data.deepest)} ${data.unit || ''}`);
}

async function begin() {
  new ResizeObserver(resize).observe(canvas);
  listen();
  resize();
  const answer = await part('layers.json');
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.detail);
  data = found;
  showPanel();
  resize();
  fit();
}

begin().catch(error => {
  element('title').textContent = 'No preview';
  element('about').textContent = error.message;
});
