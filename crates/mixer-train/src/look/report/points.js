// Figures of points: accuracy against cost with the front or against the size of the training set, and accuracy
// against confidence.

class Scatter extends Figure {
  constructor({ name, x, y, joins, points }) {
    super(name, `${y} against ${x}; the table below has the numbers`);
    Object.assign(this, { x, y, joins, points });
    this.groups = [...new Set(points.map((point) => point.group))];
    this.figure.append(element('p', { class: 'legend' }, ...this.groups.map((group, i) => element('span', {}, swatch(i), group)), element('span', { class: 'quiet' }, `up: ${y}; ${joins === 'group' ? 'lines: the mean of each network' : 'line: the front'}`)));
  }

  draw() {
    if (this.points.length === 0) { this.nothing(); return; }
    const range = (values, isLog) => {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      if (isLog) return [low / 1.6, high * 1.6];
      const room = (high - low) / 10 || 1;
      return [low - room, high + room];
    };
    const bottom = BOTTOM + 16;
    const { sx, sy } = this.axes({ x: range(this.points.map(({ x }) => x), true), y: range(this.points.map(({ y }) => y)), isLogX: true, xName: this.x, bottom });
    const front = this.points.filter((point) => point.is_front).sort((a, b) => a.x - b.x);
    const path = (points) => points.map(({ x, y }, i) => `${i === 0 ? 'M' : 'L'}${sx(x).toFixed(1)} ${sy(y).toFixed(1)}`).join('');
    if (this.joins === 'front') this.svg.append(shape('path', { class: 'front', d: path(front) }));
    else this.groups.forEach((group, i) => this.svg.append(shape('path', { class: 'curve', d: path(this.means(group)), style: `stroke:${colour(i)}` })));
    for (const point of this.points) {
      const mark = shape('circle', { r: point.is_front ? 4.5 : 3.5, cx: sx(point.x), cy: sy(point.y), class: point.is_front ? 'mark best' : 'mark', style: `fill:${colour(this.groups.indexOf(point.group))}` });
      mark.append(shape('title', {}, `${point.name} (${point.about}): ${short(point.y)} at ${short(point.x)}`));
      mark.addEventListener('pointerenter', () => { this.readout.textContent = `${point.name} (${point.about}): ${short(point.y)} at ${short(point.x)}`; });
      this.svg.append(mark);
    }
    // Names of the front, where they lie on nothing.
    const taken = this.points.map(({ x, y }) => [sx(x) - 4, sy(y) - 4, sx(x) + 4, sy(y) + 4]);
    for (const { name, x, y } of front) {
      const width = 6 * name.length, places = [];
      for (const [isLeft, isAbove] of [[false, false], [true, true], [false, true], [true, false]]) {
        const [left, base] = [isLeft ? sx(x) - 8 - width : sx(x) + 8, sy(y) + (isAbove ? -6 : 13)];
        places.push([left, base - 10, left + width, base]);
      }
      const isFree = ([left, top, right, low]) => left >= LEFT && right <= WIDTH && top >= 0
        && !taken.some((other) => left < other[2] && other[0] < right && top < other[3] && other[1] < low);
      const place = places.find(isFree);
      if (place === undefined) continue;
      taken.push(place);
      this.svg.append(shape('text', { x: place[0], y: place[3] - 1 }, name));
    }
  }

  // The mean of the points of a group at each x, from left to right.
  means(group) {
    const own = this.points.filter((point) => point.group === group);
    return [...new Set(own.map(({ x }) => x))].sort((a, b) => a - b).map((x) => {
      const ys = own.filter((point) => point.x === x).map(({ y }) => y);
      return { x, y: ys.reduce((sum, y) => sum + y, 0) / ys.length };
    });
  }

  cells() {
    const order = [...this.points].sort((a, b) => b.y - a.y);
    return order.map((point) => ({ isWinner: point.is_front, cells: [point.name, point.about, short(point.y), short(point.x), point.source] }));
  }

  heads() {
    return ['model', 'trained', this.y, this.x, 'source'];
  }

  rows() {
    return [[...this.heads(), 'front'], ...this.cells().map((row) => [...row.cells, row.isWinner])];
  }
}

class Calibration extends Figure {
  constructor(run, bins) {
    super('Calibration', 'accuracy against confidence; on the line, confidence is honest');
    Object.assign(this, { run, bins });
    this.figure.append(element('p', { class: 'quiet' }, 'Up: fraction that is right. Circles have the area of the number of pictures; below the line, confidence is too high.'));
  }

  draw() {
    const { sx, sy } = this.axes({ x: [0, 1], y: [0, 1], xName: 'mean confidence', bottom: BOTTOM + 16 });
    this.svg.append(shape('line', { class: 'cross', x1: sx(0), y1: sy(0), x2: sx(1), y2: sy(1) }));
    const most = Math.max(...this.bins.map(({ n }) => n));
    const path = this.bins.map(({ confidence, accuracy }, i) => `${i === 0 ? 'M' : 'L'}${sx(confidence).toFixed(1)} ${sy(accuracy).toFixed(1)}`).join('');
    this.svg.append(shape('path', { class: 'curve', d: path, style: `stroke:${colour(this.run)}` }));
    for (const { n, confidence, accuracy } of this.bins) {
      const mark = shape('circle', { r: 2.5 + 8 * Math.sqrt(n / most), cx: sx(confidence), cy: sy(accuracy), class: 'area', style: `fill:${colour(this.run)}` });
      mark.append(shape('title', {}, `${n} pictures: confidence ${short(confidence)}, right ${short(accuracy)}`));
      this.svg.append(mark);
    }
  }

  rows() {
    return [['n', 'confidence', 'accuracy'], ...this.bins.map(({ n, confidence, accuracy }) => [n, confidence, accuracy])];
  }
}
