#!/usr/bin/env bash
# Opens a report of two runs in Chromium without a window, and fails where the page is blank, has an error or
# lacks a part, or where a name of a class does something. Leaves screenshots of a wide and a narrow window,
# light and dark, in OUT.
#
#     scripts/check_report.sh [MIXER] [OUT]
#
# It needs Chromium (Debian: chromium); without one it says so and ends with 77.
set -euo pipefail

mixer=$(realpath "${1:-target/release/mixer}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=${2:-$work}
mkdir -p "$out"
out=$(realpath "$out")

browser=
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then browser=$name; break; fi
done
[[ -n $browser ]] || { echo "no Chromium on PATH: the report was not opened" >&2; exit 77; }

open_page() {
    timeout 120 "$browser" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
        --disable-background-networking --disable-extensions --user-data-dir="$work/profile" \
        --enable-logging=stderr "$@" 2>"$work/log" || { cat "$work/log" >&2; return 1; }
}

fail() {
    echo "error: $*" >&2
    exit 1
}

cd "$work"
cat >run.toml <<'TOML'
[model]
image_size = 16
patch_size = 4
hidden_dim = 16
num_blocks = 2
[data]
path = "data"
[optimizer]
learning_rate = 0.01
[train]
batch_size = 20
steps = 40
log_every_steps = 1
eval_every_steps = 10
TOML
"$mixer" data synthesise --out data --image-size 16 --examples 200 --val-examples 100 >/dev/null 2>&1
# A slash would be another folder; the rest of what HTML could take for more than text.
for split in data/*; do
    first=$(find "$split" -mindepth 1 -maxdepth 1 -type d | sort | head -n 1)
    mv "$first" "$split/<img src=x onerror=document.title='broken'>"
done
for name in a b; do
    "$mixer" pretrain run.toml --run-dir "$name" --set "seed=$(printf %d "'$name")" >/dev/null 2>&1
    "$mixer" evaluate "$name" --details >/dev/null 2>&1
done
printf 'A note with </script><img src=x onerror=alert(1)>.\n' >a/notes.md
"$mixer" pretrain run.toml --run-dir half --set data.train_fraction=0.5 >/dev/null 2>&1
"$mixer" report a b half --figure pareto --out parts.html >/dev/null 2>&1
open_page --window-size=1280,4000 --virtual-time-budget=5000 --dump-dom "file://$work/parts.html" >page.html
if grep -E 'CONSOLE|Uncaught' log; then fail "the console has something to say"; fi
grep -q 'lines: the mean of each network' page.html || fail "the figure of training sets is missing"

"$mixer" report a b --figure pareto --out report.html >/dev/null 2>&1

open_page --window-size=1280,4000 --virtual-time-budget=5000 --dump-dom "file://$work/report.html" >page.html
if grep -E 'CONSOLE|Content Security Policy|Uncaught' log; then fail "the console has something to say"; fi
ready=$(grep -o 'data-ready="[0-9]*' page.html | grep -o '[0-9]*$') || fail "the page did not come to its end"
title=$(grep -o '<title>[^<]*' page.html | head -n 1)
[[ $title == '<title>2 runs' ]] || fail "a name did something: $title"
for id in runs differences figures curves evaluation pictures details; do
    grep -q "id=\"$id\"" page.html || fail "the part \`$id\` is missing"
done
[[ $(grep -o 'class="curve"' page.html | wc -l) -gt 4 ]] || fail "the curves were not drawn"
grep -q 'class="front"' page.html || fail "no front was drawn"

# Published models alone.
"$mixer" report --figure pareto --out published.html >/dev/null 2>&1
open_page --window-size=1280,4000 --virtual-time-budget=5000 --dump-dom "file://$work/published.html" >page.html
if grep -E 'CONSOLE|Uncaught' log; then fail "the console has something to say"; fi
[[ $(grep -o 'class="front"' page.html | wc -l) == 2 ]] || fail "the published figures were not drawn"

# The same page, with somebody at the mouse and the keys.
{
    cat report.html
    cat <<'HTML'
<script>
addEventListener('load', async () => {
  const wrong = [], check = (name, is) => { if (!is) wrong.push(name); };
  const chart = charts.find(({ name }) => name === 'train/loss');
  chart.figure.scrollIntoView();
  show(chart);
  const curve = () => chart.svg.querySelector('.curve').getAttribute('d');
  const key = (name) => chart.svg.dispatchEvent(new KeyboardEvent('keydown', { key: name, bubbles: true }));
  const button = (text) => [...chart.figure.querySelectorAll('button')].find((found) => found.textContent === text);
  const start = curve(), select = document.querySelector('select');
  for (const axis of ['epoch', 'hours', 'examples', 'step']) {
    select.value = axis;
    select.dispatchEvent(new Event('change'));
    check(axis, curve().length > 20 && !curve().includes('NaN'));
  }
  check('the first axis again', curve() === start);
  // By hand: TensorBoard's moving average without the bias of its beginning.
  const two = smoothed([[0, 1], [1, 2], [2, NaN], [3, 4]], 0.5).map(([, y]) => y);
  check('smoothing', two[0] === 1 && Math.abs(two[1] - 5 / 3) < 1e-12 && Number.isNaN(two[2]) && Math.abs(two[3] - 3) < 1e-12);
  key('Home'); key('ArrowRight');
  check('reading', /^\d/.test(chart.readout.textContent));
  const box = chart.svg.getBoundingClientRect();
  const pointer = (type, share) => chart.svg.dispatchEvent(new PointerEvent(type, { pointerId: 1, bubbles: true, clientX: box.left + share * box.width, clientY: box.top + box.height / 2 }));
  chart.svg.setPointerCapture = () => {};
  pointer('pointerdown', 0.4); pointer('pointermove', 0.6); pointer('pointerup', 0.6);
  check('zoom', chart.zoom !== null && curve() !== start && !button('all').hidden);
  key('Escape');
  check('all', chart.zoom === null && curve() === start && button('all').hidden);
  button('log').click();
  check('log', curve() !== start && button('log').getAttribute('aria-pressed') === 'true');
  button('CSV').click();
  check('CSV', chart.csv().startsWith('run,step,epoch,hours,examples,value\na,1,') && chart.csv().split('\n').length === 82);
  button('SVG').click();
  check('SVG', chart.readout.textContent.startsWith('saved as train_loss.svg'));
  dispatchEvent(new Event('beforeprint'));
  check('print', charts.every(({ svg }) => svg.childElementCount > 5));
  const box_ = document.querySelector('input[type=checkbox]');
  box_.click();
  check('hidden run', chart.svg.querySelectorAll('.curve').length === 1);
  document.documentElement.dataset.hand = wrong.length === 0 ? 'well' : `wrong: ${wrong.join(', ')}`;
});
</script>
HTML
} >hand.html
open_page --window-size=1280,4000 --virtual-time-budget=5000 --dump-dom "file://$work/hand.html" >page.html
if grep -E 'CONSOLE|Uncaught' log; then fail "the console has something to say"; fi
hand=$(grep -o 'data-hand="[^"]*"' page.html || true)
[[ $hand == 'data-hand="well"' ]] || fail "a figure does not obey: $hand"

for width in 1280 390; do
    for scheme in dark light; do
        picture=$out/report_${width}_$scheme.png
        open_page "--blink-settings=preferredColorScheme=$([[ $scheme == dark ]] && echo 0 || echo 1)" \
            --window-size="$width,4000" --screenshot="$picture" "file://$work/report.html" >/dev/null
        # A blank page of this size is smaller.
        [[ $(stat -c %s "$picture") -gt 60000 ]] || fail "the page is blank: $picture"
    done
done
echo "the report opens: $(stat -c %s report.html) bytes, drawn after $ready ms"
