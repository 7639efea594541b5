'use strict';
// The report's charts and tables. Everything that comes from a run goes through `textContent`.

const report = JSON.parse(document.getElementById('data').textContent);
const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 480, HEIGHT = 260, LEFT = 52, RIGHT = 8, TOP = 8, BOTTOM = 24;
const state = { smoothing: 0.6, axis: 'step', hidden: new Set() };
const charts = [];

const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'class') made.className = value;
    else if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
};
const shape = (name, attributes, text) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
};
const colour = (run) => `var(--run-${run % 8})`;
const short = (value) => {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(5)));
};

// TensorBoard's smoothing: a moving average without the bias of its beginning.
const smoothed = (points, weight) => {
  let last = 0, count = 0;
  return points.map(([x, y]) => {
    if (!Number.isFinite(y)) return [x, y];
    last = last * weight + (1 - weight) * y;
    count += 1;
    return [x, weight === 0 ? y : last / (1 - weight ** count)];
  });
};

const ticks = (low, high, isLog) => {
  if (isLog) {
    const found = [];
    const step = Math.max(1, Math.ceil((Math.log10(high) - Math.log10(low)) / 5));
    for (let power = Math.ceil(Math.log10(low)); power <= Math.log10(high); power += step) found.push(10 ** power);
    if (found.length > 1) return found;
  }
  const rough = (high - low) / 5 || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * unit).find((n) => n >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toPrecision(12)));
  return found;
};

class Chart {
  constructor(name, series) {
    this.name = name;
    this.series = series;
    this.zoom = null;
    this.isLog = false;
    this.svg = shape('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', tabindex: 0, 'aria-label': `${name}: drag to zoom, arrow keys to read values, Escape to see all` });
    this.readout = element('output');
    const log = element('button', { type: 'button', 'aria-pressed': 'false', onclick: () => { this.isLog = !this.isLog; log.setAttribute('aria-pressed', this.isLog); this.draw(); } }, 'log');
    this.figure = element('figure', { class: 'chart' },
      element('header', {}, element('h3', {}, name), element('span', {}, log,
        element('button', { type: 'button', onclick: () => this.copy() }, 'CSV'),
        element('button', { type: 'button', onclick: () => this.save() }, 'SVG'))),
      this.svg, this.readout);
    this.listen();
  }

  points(one) {
    const column = { step: 0, epoch: 2, hours: 3 }[state.axis];
    return one.points.filter((point) => point[column] !== null).map((point) => [point[column], point[1] === null ? NaN : point[1]]);
  }

  shown() {
    return this.series.filter((one) => !state.hidden.has(one.run)).map((one) => {
      const raw = this.points(one);
      return { run: one.run, raw, curve: smoothed(raw, one.isSmooth ? 0 : state.smoothing) };
    });
  }

  draw() {
    const shown = this.shown();
    const inside = (x) => !this.zoom || (x >= this.zoom[0] && x <= this.zoom[1]);
    const visible = shown.flatMap((one) => one.curve.concat(one.raw)).filter(([x, y]) => inside(x) && Number.isFinite(y) && (!this.isLog || y > 0));
    this.svg.replaceChildren();
    if (visible.length === 0) {
      this.svg.append(shape('text', { x: WIDTH / 2, y: HEIGHT / 2, 'text-anchor': 'middle' }, 'nothing to show'));
      this.scale = null;
      return;
    }
    let [xLow, xHigh, yLow, yHigh] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const [x, y] of visible) { xLow = Math.min(xLow, x); xHigh = Math.max(xHigh, x); yLow = Math.min(yLow, y); yHigh = Math.max(yHigh, y); }
    if (this.zoom) [xLow, xHigh] = this.zoom;
    if (xLow === xHigh) { xLow -= 1; xHigh += 1; }
    const isLog = this.isLog && yLow > 0;
    if (yLow === yHigh) { yLow -= Math.abs(yLow) / 10 || 1; yHigh += Math.abs(yHigh) / 10 || 1; if (isLog) yLow = yHigh / 4; }
    const f = isLog ? Math.log : (v) => v;
    const pad = (f(yHigh) - f(yLow)) * 0.04;
    const bottom = f(yLow) - pad, top = f(yHigh) + pad;
    const sx = (x) => LEFT + (x - xLow) / (xHigh - xLow) * (WIDTH - LEFT - RIGHT);
    const sy = (y) => HEIGHT - BOTTOM - (f(y) - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM);
    this.scale = { sx, sy, xLow, xHigh };
    for (const y of ticks(yLow, yHigh, isLog)) {
      this.svg.append(shape('line', { class: 'grid', x1: LEFT, x2: WIDTH - RIGHT, y1: sy(y), y2: sy(y) }));
      this.svg.append(shape('text', { x: LEFT - 6, y: sy(y) + 4, 'text-anchor': 'end' }, short(y)));
    }
    for (const x of ticks(xLow, xHigh, false)) {
      this.svg.append(shape('text', { x: Math.min(Math.max(sx(x), LEFT + 4), WIDTH - RIGHT - 12), y: HEIGHT - 6, 'text-anchor': 'middle' }, short(x)));
    }
    const path = (points) => {
      let text = '', pen = 'M';
      for (const [x, y] of points) {
        if (!inside(x) || !Number.isFinite(y) || (isLog && y <= 0)) { if (!Number.isFinite(y)) pen = 'M'; continue; }
        text += `${pen}${sx(x).toFixed(1)} ${sy(y).toFixed(1)}`;
        pen = 'L';
      }
      return text;
    };
    for (const one of shown) {
      if (one.curve !== one.raw && state.smoothing > 0) this.svg.append(shape('path', { class: 'raw', d: path(one.raw), style: `stroke:${colour(one.run)}` }));
      this.svg.append(shape('path', { class: 'curve', d: path(one.curve), style: `stroke:${colour(one.run)}` }));
      if (one.curve.length === 1) this.svg.append(shape('circle', { r: 3, cx: sx(one.curve[0][0]), cy: sy(one.curve[0][1]), style: `fill:${colour(one.run)}` }));
    }
    this.cross = shape('line', { class: 'cross', y1: TOP, y2: HEIGHT - BOTTOM, x1: -9, x2: -9 });
    this.svg.append(this.cross);
    this.drawn = shown;
  }

  at(event) {
    const box = this.svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * WIDTH;
    const { xLow, xHigh } = this.scale;
    return Math.min(xHigh, Math.max(xLow, xLow + (x - LEFT) / (WIDTH - LEFT - RIGHT) * (xHigh - xLow)));
  }

  read(x) {
    if (!this.scale) return;
    this.cursor = x;
    this.cross.setAttribute('x1', this.scale.sx(x));
    this.cross.setAttribute('x2', this.scale.sx(x));
    const texts = this.drawn.map((one) => {
      const near = one.raw.reduce((best, point) => (best === null || Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best), null);
      return near === null ? null : element('span', {}, element('span', { class: 'swatch', style: `--colour:${colour(one.run)}` }), `${short(near[0])}: ${short(near[1])}  `);
    });
    this.readout.replaceChildren(...texts.filter((text) => text !== null));
  }

  listen() {
    let from = null, band = null;
    this.svg.addEventListener('pointerdown', (event) => {
      if (!this.scale) return;
      from = this.at(event);
      band = shape('rect', { class: 'band', y: TOP, height: HEIGHT - TOP - BOTTOM, x: this.scale.sx(from), width: 0 });
      this.svg.append(band);
      this.svg.setPointerCapture(event.pointerId);
    });
    this.svg.addEventListener('pointermove', (event) => {
      if (!this.scale) return;
      const x = this.at(event);
      this.read(x);
      if (band) {
        const [a, b] = [this.scale.sx(from), this.scale.sx(x)];
        band.setAttribute('x', Math.min(a, b));
        band.setAttribute('width', Math.abs(a - b));
      }
    });
    this.svg.addEventListener('pointerup', (event) => {
      if (!band) return;
      const to = this.at(event);
      band.remove();
      band = null;
      if (Math.abs(this.scale.sx(to) - this.scale.sx(from)) > 6) {
        this.zoom = [Math.min(from, to), Math.max(from, to)];
        this.draw();
      }
    });
    const all = () => { this.zoom = null; this.draw(); };
    this.svg.addEventListener('dblclick', all);
    this.svg.addEventListener('keydown', (event) => {
      if (!this.scale) return;
      const step = (this.scale.xHigh - this.scale.xLow) / 50;
      const move = { ArrowLeft: -step, ArrowRight: step }[event.key];
      if (move !== undefined) {
        const x = (this.cursor ?? this.scale.xLow) + move;
        this.read(Math.min(this.scale.xHigh, Math.max(this.scale.xLow, x)));
        event.preventDefault();
      } else if (event.key === 'Escape') all();
    });
  }

  csv() {
    const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const lines = ['run,step,epoch,hours,value'];
    for (const one of this.series) {
      for (const [step, value, epoch, hours] of one.points) lines.push([quoted(report.runs[one.run].name), step, epoch ?? '', hours ?? '', value ?? ''].join(','));
    }
    return lines.join('\n') + '\n';
  }

  copy() {
    const text = this.csv();
    const done = () => { this.readout.textContent = 'copied'; };
    // A page from disk may not be allowed to; then the text is there to be taken.
    const offer = () => { this.readout.replaceChildren(element('textarea', { rows: 4, cols: 40, 'aria-label': 'CSV' }, text)); };
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, offer); else offer();
  }

  save() {
    const copy = this.svg.cloneNode(true);
    copy.setAttribute('xmlns', SVG);
    copy.setAttribute('width', WIDTH);
    copy.setAttribute('height', HEIGHT);
    // Variables mean nothing outside the page.
    const originals = this.svg.querySelectorAll('*');
    copy.querySelectorAll('*').forEach((node, i) => {
      const style = getComputedStyle(originals[i]);
      for (const key of ['stroke', 'fill', 'opacity', 'stroke-width', 'font']) node.style[key] = style[key];
    });
    const link = element('a', { download: `${this.name.replace(/[^\w.-]+/g, '_')}.svg`, href: `data:image/svg+xml,${encodeURIComponent(copy.outerHTML)}` });
    link.click();
  }
}

const table = (heads, rows, options = {}) => element('div', { class: 'scroll' }, element('table', {},
  element('thead', {}, element('tr', {}, ...heads.map((head, i) => element('th', { class: options.numbers?.includes(i) ? 'number' : '' }, head)))),
  element('tbody', {}, ...rows.map((row) => element('tr', { class: row.isWinner ? 'winner' : '' }, ...row.cells.map((cell, i) => element('td', { class: options.numbers?.includes(i) ? 'number' : options.keys?.includes(i) ? 'key' : '' }, cell)))))));

const section = (id, made) => { const place = document.getElementById(id); if (made === null) place.remove(); else place.append(...made); };

const named = (run) => element('span', {}, element('span', { class: 'swatch', style: `--colour:${colour(run)}` }), report.runs[run].name);

section('runs', [table(report.columns, report.runs.map((run, i) => ({ isWinner: i === report.winner && report.runs.length > 1, cells: [named(i), ...run.row] })), { numbers: report.numbers })]);

section('differences', report.differences.length === 0 ? null : [table(['key', ...report.runs.map((run) => run.name)], report.differences.map((line) => ({ cells: [line.key, ...line.values.map((value) => value ?? '–')] })), { keys: [0] })]);

const place = document.getElementById('curves');
for (const { name, series } of report.charts) {
  const chart = new Chart(name, series);
  charts.push(chart);
  place.append(chart.figure);
}
const redraw = () => charts.forEach((chart) => chart.draw());
const number = element('output', {}, String(state.smoothing));
section('controls', [
  element('label', {}, 'smoothing', element('input', { type: 'range', min: 0, max: 0.99, step: 0.01, value: state.smoothing, oninput: (event) => { state.smoothing = Number(event.target.value); number.textContent = state.smoothing; redraw(); } }), number),
  element('label', {}, 'axis', element('select', { onchange: (event) => { state.axis = event.target.value; charts.forEach((chart) => { chart.zoom = null; }); redraw(); } }, ...['step', 'epoch', 'hours'].map((axis) => element('option', { value: axis }, axis)))),
  ...report.runs.map((run, i) => element('label', {}, element('input', { type: 'checkbox', checked: '', onchange: (event) => { if (event.target.checked) state.hidden.delete(i); else state.hidden.add(i); redraw(); } }), named(i))),
]);
redraw();

for (const [i, run] of report.runs.entries()) {
  if (run.evaluation === null) continue;
  const found = run.evaluation;
  const made = [element('h3', {}, named(i)), table(['measure', 'value'], found.measures.map(([name, value]) => ({ cells: [name, value] })), { numbers: [1] })];
  if (found.confusion !== null) {
    const cell = (count, total) => { const made = element('td', { class: 'cell' }, count === 0 ? '' : String(count)); made.style.setProperty('--share', total === 0 ? 0 : Math.round(60 * count / total)); return made; };
    made.push(element('p', { class: 'quiet' }, 'Rows are truth, columns predictions.'), element('div', { class: 'scroll' }, element('table', {},
      element('thead', {}, element('tr', {}, element('th', {}, ''), ...found.classes.map((name) => element('th', { class: 'number' }, name)))),
      element('tbody', {}, ...found.confusion.map((row, truth) => { const total = row.reduce((sum, count) => sum + count, 0); return element('tr', {}, element('th', {}, found.classes[truth]), ...row.map((count) => cell(count, total))); })))));
  }
  if (found.confused.length > 0) made.push(element('p', { class: 'quiet' }, 'Confused most:'), table(['class', 'taken for', 'times', 'the other way'], found.confused.map((pair) => ({ cells: pair })), { numbers: [2, 3] }));
  if (found.mistakes.length > 0) made.push(element('p', { class: 'quiet' }, 'The most confident mistakes:'), element('div', { class: 'mistakes' }, ...found.mistakes.map((mistake) => element('figure', {}, element('img', { src: mistake.data, alt: mistake.caption, loading: 'lazy' }), element('figcaption', {}, mistake.caption)))));
  document.getElementById('evaluation').append(...made);
}
if (report.runs.every((run) => run.evaluation === null)) document.getElementById('evaluation').remove();

for (const [i, run] of report.runs.entries()) {
  for (const picture of run.pictures) {
    document.getElementById('pictures').append(element('figure', { class: 'picture' }, element('img', { src: picture.data, alt: picture.caption }), element('figcaption', {}, named(i), `: ${picture.caption}`)));
  }
}
if (report.runs.every((run) => run.pictures.length === 0)) document.getElementById('pictures').remove();

for (const [i, run] of report.runs.entries()) {
  const made = [element('h3', {}, named(i)), table(['', ''], run.facts.map(([name, value]) => ({ cells: [name, value] })))];
  if (run.notes !== null) made.push(element('pre', {}, run.notes));
  made.push(element('details', {}, element('summary', {}, 'configuration'), element('pre', {}, run.plan)));
  document.getElementById('details').append(...made);
}
document.documentElement.dataset.ready = 'true';
