// The sections of the report.

const charts = [];
const section = (id, made) => { const place = document.getElementById(id); if (made === null) place.remove(); else place.append(...made); };
const named = (run) => element('span', {}, swatch(run), report.runs[run].name);
const table = (heads, rows, { numbers = [], keys = [], long = [] } = {}) => {
  const kind = (i) => (numbers.includes(i) ? 'number' : keys.includes(i) ? 'key' : long.includes(i) ? 'long' : '');
  const head = heads === null ? null : element('thead', {}, element('tr', {}, ...heads.map((name, i) => element('th', { class: kind(i), scope: 'col' }, name))));
  return element('div', { class: 'scroll' }, element('table', {}, head,
    element('tbody', {}, ...rows.map((row) => element('tr', { class: row.isWinner ? 'winner' : '' }, ...row.cells.map((cell, i) => element('td', { class: kind(i) }, cell)))))));
};

section('runs', report.runs.length === 0 ? null : [table(report.columns, report.runs.map((run, i) => ({ isWinner: i === report.winner && report.runs.length > 1, cells: [named(i), ...run.row] })), { numbers: report.numbers })]);

section('differences', report.differences.length === 0 ? null : [table(['key', ...report.runs.map((run, i) => named(i))], report.differences.map((line) => ({ cells: [line.key, ...line.values.map((value) => value ?? '–')] })), { keys: [0], long: report.runs.map((run, i) => i + 1) })]);

for (const figure of report.figures) {
  const scatter = new Scatter(figure);
  scatter.draw();
  document.getElementById('pareto').append(scatter.figure);
  document.getElementById('numbers').append(element('h3', {}, figure.name), table(scatter.heads(), scatter.cells(), { numbers: [2, 3] }));
}
if (report.figures.length === 0) document.getElementById('figures').remove();

for (const { name, series } of report.charts) {
  const chart = new Chart(name, series);
  charts.push(chart);
  document.getElementById('curves').append(chart.figure);
}
if (report.charts.length === 0) document.getElementById('chart-section').remove();
// A chart is drawn when it comes near the window, so that long pages open at once; all are for print.
const seen = new Set();
const redraw = () => seen.forEach((chart) => chart.draw());
const show = (chart) => { if (!seen.has(chart)) { seen.add(chart); chart.draw(); } };
const watcher = new IntersectionObserver((entries) => entries.forEach(({ isIntersecting, target }) => {
  if (!isIntersecting) return;
  watcher.unobserve(target);
  show(charts.find((chart) => chart.figure === target));
}), { rootMargin: '500px' });
addEventListener('beforeprint', () => charts.forEach(show));
const number = element('output', {}, String(state.smoothing));
if (report.charts.length > 0) section('controls', [
  element('label', {}, 'smoothing', element('input', { type: 'range', min: 0, max: 0.99, step: 0.01, value: state.smoothing, oninput: (event) => { state.smoothing = Number(event.target.value); number.textContent = state.smoothing; redraw(); } }), number),
  element('label', {}, 'axis', element('select', { onchange: (event) => { state.axis = event.target.value; charts.forEach((chart) => { chart.zoom = null; }); redraw(); } }, ...Object.keys(AXES).map((axis) => element('option', { value: axis }, axis)))),
  ...report.runs.map((run, i) => element('label', {}, element('input', { type: 'checkbox', checked: '', onchange: (event) => { if (event.target.checked) state.hidden.delete(i); else state.hidden.add(i); redraw(); } }), named(i))),
]);
charts.forEach((chart) => watcher.observe(chart.figure));

for (const [i, run] of report.runs.entries()) {
  if (run.evaluation === null) continue;
  const found = run.evaluation;
  const made = [element('h3', {}, named(i)), table(['measure', 'value'], found.measures.map(([name, value]) => ({ cells: [name, value] })), { numbers: [1] })];
  if (found.calibration.length > 0) {
    const calibration = new Calibration(i, found.calibration);
    calibration.draw();
    made.push(element('div', { class: 'charts' }, calibration.figure));
  }
  if (found.confusion !== null) {
    const cell = (count, total) => { const made = element('td', { class: 'cell' }, count === 0 ? '' : String(count)); made.style.setProperty('--share', total === 0 ? 0 : Math.round(60 * count / total)); return made; };
    made.push(element('p', { class: 'quiet' }, 'Rows are truth, columns predictions.'), element('div', { class: 'scroll' }, element('table', {},
      element('thead', {}, element('tr', {}, element('th', {}, ''), ...found.classes.map((name) => element('th', { class: 'number' }, name)))),
      element('tbody', {}, ...found.confusion.map((row, truth) => { const total = row.reduce((sum, count) => sum + count, 0); return element('tr', {}, element('th', { scope: 'row' }, found.classes[truth]), ...row.map((count) => cell(count, total))); })))));
  }
  if (found.confusion_picture !== null) {
    const { data, caption } = found.confusion_picture;
    made.push(element('figure', { class: 'picture' }, element('img', { src: data, alt: caption }), element('figcaption', {}, caption)));
  }
  if (found.worst.length > 0) made.push(element('p', { class: 'quiet' }, 'The classes with the least accuracy:'), table(['class', 'pictures', 'top-1, %'], found.worst.map((cells) => ({ cells })), { numbers: [1, 2] }));
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
  const made = [element('h3', {}, named(i)), table(null, run.facts.map(([name, value]) => ({ cells: [name, value] })), { long: [1] })];
  if (run.notes !== null) made.push(element('pre', {}, run.notes));
  made.push(element('details', {}, element('summary', {}, 'configuration'), element('pre', {}, run.plan)));
  document.getElementById('details').append(...made);
}
if (report.runs.length === 0) document.getElementById('details').remove();

// What is wider than its place is reached by the keyboard too.
for (const scroll of document.querySelectorAll('.scroll')) {
  if (scroll.scrollWidth > scroll.clientWidth) scroll.tabIndex = 0;
}
// Milliseconds since the page was asked for, for those who measure: drawn, and painted.
document.documentElement.dataset.ready = Math.round(performance.now());
requestAnimationFrame(() => requestAnimationFrame(() => { document.documentElement.dataset.painted = Math.round(performance.now()); }));
