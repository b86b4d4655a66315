/** Line charts of the last minutes, in SVG. A chart knows points and a span of time, not their source. */

const SVG = "http://www.w3.org/2000/svg";
const EDGE = { top: 10, right: 6, bottom: 20, left: 48 };
const GAP = 2.5; // intervals: points that are further apart are not joined

function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A round step, a multiple of `unit`: about three steps reach `most`. With `whole`, the multiple is a whole number. */
export function niceStep(most, whole, unit = 1) {
  const rough = most / unit / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough * 0.999);
  return unit * (whole ? Math.max(1, Math.ceil(step)) : step);
}

/** Seconds between the marks of the time axis. */
function timeStep(span) {
  return [10, 15, 30, 60, 120, 180, 300].find((step) => span / step <= 6) ?? 600;
}

function ago(seconds) {
  if (seconds === 0) return "now";
  return seconds % 60 ? `−${seconds} s` : `−${seconds / 60} min`;
}

export class Chart {
  /**
   * @param {{title: string, series: {key: string, label: string, style: string}[], format: (value: number) => string,
   *          whole?: boolean, unit?: number, least: number}} about `least`: the end of the scale is at least this.
   *          The marks are as in `niceStep`.
   * @param {(time: number | null, byKeyboard: boolean) => void} onCursor called with the moment that a person points at, or null.
   */
  constructor(about, onCursor) {
    this.about = about;
    this.onCursor = onCursor;
    this.plot = svg("svg", { class: "plot", role: "img", tabindex: "0" });
    this.outputs = about.series.map(() => document.createElement("output"));
    const caption = document.createElement("figcaption");
    const title = document.createElement("b");
    title.textContent = about.title;
    caption.append(title, ...about.series.map((series, index) => this.#key(series, index)));
    this.element = document.createElement("figure");
    this.element.append(caption, this.plot);
    this.plot.addEventListener("pointermove", (event) => onCursor(this.#timeAt(event), false));
    this.plot.addEventListener("pointerleave", () => onCursor(null, false));
    this.plot.addEventListener("blur", () => onCursor(null, false));
    this.plot.addEventListener("keydown", (event) => this.#onKey(event));
  }

  #key(series, index) {
    const key = document.createElement("span");
    key.className = `key ${series.style}`;
    key.append(series.label, this.outputs[index]);
    return key;
  }

  #timeAt(event) {
    const box = this.plot.getBoundingClientRect();
    const part = (event.clientX - box.left - EDGE.left) / (box.width - EDGE.left - EDGE.right);
    return this.from + Math.min(Math.max(part, 0), 1) * (this.to - this.from);
  }

  #onKey(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (step) {
      event.preventDefault();
      const next = (this.cursor ?? this.to) + (step * (this.to - this.from)) / 60;
      this.onCursor(Math.min(Math.max(next, this.from), this.to), true);
    } else if (event.key === "Escape") {
      this.onCursor(null, true);
    }
  }

  /** The values of the point at `index`, in words. */
  words(points, index) {
    const told = this.about.series.map(({ key, label }) => `${label} ${this.#shown(points[key][index])}`);
    return `${this.about.title}: ${told.join(", ")}`;
  }

  #shown(value) {
    return value === null || value === undefined ? "–" : this.about.format(value);
  }

  /**
   * @param points columns by name; the column `at` has seconds since 1970.
   * @param from the first moment shown; @param to the last one.
   * @param cursor the moment that a person points at, or null.
   * @param interval the seconds between two points.
   */
  draw(points, from, to, cursor, interval) {
    Object.assign(this, { from, to, cursor });
    const { width, height } = this.plot.getBoundingClientRect();
    if (!width) return;
    const { series, least, whole, unit, format } = this.about;
    const first = points.at.findIndex((at) => at >= from - interval);
    const shown = first < 0 ? [] : [...points.at.keys()].slice(first);
    const most = Math.max(least, ...series.flatMap(({ key }) => shown.map((index) => points[key][index] ?? 0)));
    const step = niceStep(most, whole, unit);
    const top = Math.ceil((most * 0.999) / step) * step;
    const x = (at) => EDGE.left + ((at - from) / (to - from)) * (width - EDGE.left - EDGE.right);
    const y = (value) => height - EDGE.bottom - (value / top) * (height - EDGE.top - EDGE.bottom);
    const parts = [...this.#scales(x, y, top, step, width, height, format)];
    parts.push(...this.#absences(points, shown, x, height, interval));
    for (const each of series) parts.push(...this.#line(each, points, shown, x, y, interval));
    const index = cursor === null ? points.at.length - 1 : this.nearest(points.at, cursor);
    if (cursor !== null && index >= 0) parts.push(...this.#cursor(points, index, x, y, height));
    this.plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.plot.replaceChildren(...parts);
    this.plot.setAttribute("aria-label", `${this.words(points, index)}. Arrow keys move through time.`);
    series.forEach(({ key }, number) => { this.outputs[number].textContent = this.#shown(points[key][index]); });
  }

  nearest(times, wanted) {
    let best = times.length - 1;
    for (let index = best; index >= 0; index -= 1) {
      if (Math.abs(times[index] - wanted) > Math.abs(times[best] - wanted)) break;
      best = index;
    }
    return best;
  }

  *#scales(x, y, top, step, width, height, format) {
    for (let value = 0; value <= top * 1.001; value += step) {
      yield svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) });
      yield svg("text", { x: EDGE.left - 6, y: y(value) + 4, "text-anchor": "end" }, format(value));
    }
    const every = timeStep(this.to - this.from);
    for (let seconds = 0; seconds < this.to - this.from; seconds += every) {
      const at = x(this.to - seconds);
      if (at < EDGE.left + 14) break;
      yield svg("text", { x: at, y: height - 4, "text-anchor": seconds ? "middle" : "end" }, ago(seconds));
    }
  }

  *#absences(points, shown, x, height, interval) {
    let start = null;
    for (const index of [...shown, null]) {
      const isAway = index !== null && points.ready_workers[index] === null;
      if (isAway) start ??= index;
      else if (start !== null) {
        const end = index === null ? points.at[shown.at(-1)] : points.at[index];
        const left = Math.max(EDGE.left, x(points.at[start] - interval / 2));
        yield svg("rect", { class: "away", x: left, y: EDGE.top, width: Math.max(1, x(end) - left),
          height: height - EDGE.top - EDGE.bottom });
        start = null;
      }
    }
  }

  *#line({ key, style }, points, shown, x, y, interval) {
    const runs = [];
    let last = null;
    for (const index of shown) {
      if (points[key][index] === null) { last = null; continue; }
      if (last === null || points.at[index] - points.at[last] > GAP * interval) runs.push([]);
      const at = Math.max(EDGE.left, x(points.at[index]));
      runs.at(-1).push([at.toFixed(1), y(points[key][index]).toFixed(1)]);
      last = index;
    }
    for (const run of runs) {
      const path = `M${run.map((spot) => spot.join(",")).join("L")}`;
      if (!style.includes("dashed")) {
        const area = `${path}L${run.at(-1)[0]},${y(0)}L${run[0][0]},${y(0)}Z`;
        yield svg("path", { class: `area ${style}`, d: area });
      }
      yield svg("path", { class: `line ${style}`, d: run.length > 1 ? path : `${path}h1` });
    }
  }

  *#cursor(points, index, x, y, height) {
    const at = x(points.at[index]);
    if (at < EDGE.left) return;
    yield svg("line", { class: "cursor", x1: at, x2: at, y1: EDGE.top, y2: height - EDGE.bottom });
    for (const { key, style } of this.about.series) {
      const value = points[key][index];
      if (value !== null) yield svg("circle", { class: `spot ${style}`, cx: at, cy: y(value), r: 3.5 });
    }
  }
}
