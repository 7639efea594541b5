// A quantity over the course of runs: smoothed, zoomed, over any axis.

const state = { smoothing: 0.6, axis: 'step', hidden: new Set() };

// The axes: a point is step, value, hours.
const AXES = {
  step: ([step]) => step,
  epoch: ([step], run) => step / run.steps_per_epoch,
  hours: ([, , hours]) => hours,
  examples: ([step], run) => step * run.batch_size,
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

class Chart extends Figure {
  constructor(name, series) {
    const log = element('button', { type: 'button', title: 'logarithmic axis', 'aria-pressed': 'false', onclick: () => { this.isLog = !this.isLog; log.setAttribute('aria-pressed', this.isLog); this.draw(); } }, 'log');
    const all = element('button', { type: 'button', title: 'leave the zoom', hidden: '', onclick: () => this.all() }, 'all');
    super(name, 'drag to zoom, arrow keys to read values, Escape to see all', all, log);
    this.series = series;
    this.zoom = null;
    this.isLog = false;
    this.allButton = all;
    this.listen();
  }

  points(one, kept) {
    const run = report.runs[one.run], at = AXES[state.axis];
    const points = kept.map((point) => [at(point, run), point[1] === null ? NaN : point[1]]);
    return points.filter(([x]) => x !== null);
  }

  shown() {
    return this.series.filter((one) => !state.hidden.has(one.run)).map((one) => {
      const raw = this.points(one, one.points);
      const weight = one.is_smooth ? 0 : state.smoothing;
      const curve = weight === 0 ? raw : smoothed(this.points(one, one.means ?? one.points), weight);
      return { run: one.run, raw, curve };
    });
  }

  draw() {
    const shown = this.shown();
    const inside = (x) => !this.zoom || (x >= this.zoom[0] && x <= this.zoom[1]);
    const isVisible = ([x, y]) => inside(x) && Number.isFinite(y) && (!this.isLog || y > 0);
    let [xLow, xHigh, yLow, yHigh] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const one of shown) {
      for (const point of one.curve === one.raw ? one.raw : one.curve.concat(one.raw)) {
        if (!isVisible(point)) continue;
        const [x, y] = point;
        xLow = Math.min(xLow, x); xHigh = Math.max(xHigh, x); yLow = Math.min(yLow, y); yHigh = Math.max(yHigh, y);
      }
    }
    this.allButton.hidden = this.zoom === null;
    if (xLow > xHigh) {
      this.nothing();
      this.scale = null;
      return;
    }
    if (this.zoom) [xLow, xHigh] = this.zoom;
    if (xLow === xHigh) { xLow -= 1; xHigh += 1; }
    if (yLow === yHigh) {
      if (this.isLog) { yLow /= 2; yHigh *= 2; } else { const room = Math.abs(yLow) / 10 || 1; yLow -= room; yHigh += room; }
    }
    const { sx, sy } = this.axes({ x: [xLow, xHigh], y: [yLow, yHigh], isLogY: this.isLog });
    this.scale = { sx, sy, xLow, xHigh };
    const path = (points) => {
      let text = '', pen = 'M';
      for (const point of points) {
        if (!isVisible(point)) { if (!Number.isFinite(point[1])) pen = 'M'; continue; }
        text += `${pen}${sx(point[0]).toFixed(1)} ${sy(point[1]).toFixed(1)}`;
        pen = 'L';
      }
      return text;
    };
    for (const one of shown) {
      const stroke = `stroke:${colour(one.run)}`;
      if (one.curve !== one.raw) this.svg.append(shape('path', { class: 'raw', d: path(one.raw), style: stroke }));
      this.svg.append(shape('path', { class: 'curve', d: path(one.curve), style: stroke }));
      const visible = one.curve.filter(isVisible);
      if (visible.length === 1) this.svg.append(shape('circle', { r: 3, cx: sx(visible[0][0]), cy: sy(visible[0][1]), style: `fill:${colour(one.run)}` }));
    }
    this.cross = shape('line', { class: 'cross', y1: TOP, y2: HEIGHT - BOTTOM, x1: -9, x2: -9 });
    this.svg.append(this.cross);
    this.drawn = shown;
  }

  all() {
    this.zoom = null;
    this.draw();
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
      return near === null ? null : element('span', {}, swatch(one.run), `${short(near[0])}: ${short(near[1])}  `);
    });
    this.readout.replaceChildren(...texts.filter((text) => text !== null));
  }

  listen() {
    let from = null, band = null;
    const leave = () => { band?.remove(); band = null; };
    this.svg.addEventListener('pointerdown', (event) => {
      if (!this.scale) return;
      leave();
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
      leave();
      if (Math.abs(this.scale.sx(to) - this.scale.sx(from)) > 6) {
        this.zoom = [Math.min(from, to), Math.max(from, to)];
        this.draw();
      }
    });
    // A finger that scrolls the page.
    this.svg.addEventListener('pointercancel', leave);
    this.svg.addEventListener('dblclick', () => this.all());
    this.svg.addEventListener('keydown', (event) => {
      if (!this.scale) return;
      const { xLow, xHigh } = this.scale;
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const end = { Home: xLow, End: xHigh }[event.key];
      if (move !== undefined || end !== undefined) {
        const x = end ?? (this.cursor ?? xLow) + move * (xHigh - xLow) / 50;
        this.read(Math.min(xHigh, Math.max(xLow, x)));
        event.preventDefault();
      } else if (event.key === 'Escape') this.all();
    });
  }

  rows() {
    const rows = [['run', 'step', 'epoch', 'hours', 'examples', 'value']];
    for (const one of this.series) {
      const run = report.runs[one.run];
      for (const point of one.points) rows.push([run.name, point[0], AXES.epoch(point, run), point[2] ?? '', AXES.examples(point, run), point[1] ?? '']);
    }
    return rows;
  }
}
