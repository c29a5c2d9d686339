/* Charts on d3, each with a legend, a text for screen readers and a table of its values. Colours come from the style sheet, so that
 * light, dark and print follow without redrawing; series differ by dash as well. Texts are set as text, never as markup. */
"use strict";
var pd = (function () {
	const WIDTH = 640, HEIGHT = 260, MARGIN = { top: 10, right: 16, bottom: 40, left: 66 }, SERIES = 8;

	function el(tag, attributes, ...children) {
		const e = document.createElement(tag);
		for (const [k, v] of Object.entries(attributes || {}))
			if (v !== null && v !== undefined && v !== false)
				e.setAttribute(k, v === true ? "" : v);
		for (const c of children)
			if (c !== null && c !== undefined)
				e.append(c);
		return e;
	}

	/* A number for people; a dash for what was not measured. */
	function num(v, digits) {
		if (v === null || v === undefined || typeof v !== "number" || !isFinite(v))
			return "–";
		const a = Math.abs(v);
		if (digits !== undefined)
			return v.toFixed(digits);
		if (a !== 0 && (a < 0.001 || a >= 1e7))
			return v.toExponential(2);
		return String(Number(v.toPrecision(a >= 1000 ? 5 : 4)));
	}

	/* -- tables -- */

	/* columns: [{label, num, get(row), node(row)}]; sortable by its heads. */
	function table(rows, columns, caption) {
		const body = el("tbody"), t = el("table");
		let by = -1, up = true;

		function fill() {
			const sorted = rows.slice();
			if (by >= 0)
				sorted.sort((a, b) => compare(columns[by].get(a), columns[by].get(b)) * (up ? 1 : -1));
			body.replaceChildren(...sorted.map((r) => el("tr", {}, ...columns.map((c) => {
				const v = c.node ? c.node(r) : c.get(r);
				return el("td", { class: c.num ? "num" : c.wrap ? "wrap" : null },
					v instanceof Node ? v : typeof v === "number" ? num(v) : v === null || v === undefined ? "–" : String(v));
			}))));
		}
		const heads = columns.map((c, i) => {
			const b = el("button", { type: "button" }, c.label), th = el("th", { scope: "col", class: c.num ? "num" : null }, b);
			b.addEventListener("click", () => {
				up = by === i ? !up : !c.num;
				by = i;
				heads.forEach((h) => h.removeAttribute("aria-sort"));
				th.setAttribute("aria-sort", up ? "ascending" : "descending");
				fill();
			});
			return th;
		});
		if (caption)
			t.append(el("caption", {}, caption));
		t.append(el("thead", {}, el("tr", {}, ...heads)), body);
		fill();
		return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption || "table" }, t);
	}

	function compare(a, b) {
		const none = (v) => v === null || v === undefined;
		if (none(a) || none(b))
			return none(a) && none(b) ? 0 : none(a) ? -1 : 1;
		return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
	}

	/* -- charts -- */

	function frame(o, kind) {
		const svg = d3.select(document.createElementNS("http://www.w3.org/2000/svg", "svg"))
			.attr("viewBox", "0 0 " + WIDTH + " " + (o.height || HEIGHT)).attr("role", "img").attr("aria-label", kind + ": " + o.title);
		return { svg, g: svg.append("g").attr("transform", "translate(" + (o.left || MARGIN.left) + "," + MARGIN.top + ")"),
			w: WIDTH - (o.left || MARGIN.left) - MARGIN.right, h: (o.height || HEIGHT) - MARGIN.top - MARGIN.bottom };
	}

	function scale(axis, values, range) {
		const good = values.filter((v) => typeof v === "number" && isFinite(v) && (!axis.log || v > 0));
		let lo = axis.min !== undefined ? axis.min : d3.min(good), hi = axis.max !== undefined ? axis.max : d3.max(good);
		if (lo === undefined)
			lo = axis.log ? 1 : 0;
		if (hi === undefined)
			hi = axis.log ? 10 : 1;
		if (!axis.log && axis.min === undefined && lo > 0 && lo < hi / 2)
			lo = 0;
		if (lo === hi) {
			hi = axis.log ? lo * 10 : lo ? lo + Math.abs(lo) * 0.1 : 1;
			lo = axis.log || axis.min !== undefined || lo === 0 ? lo : lo - Math.abs(lo) * 0.1;
		}
		const s = (axis.log ? d3.scale.log() : d3.scale.linear()).domain([lo, hi]).range(range);
		return axis.exact ? s : s.nice();
	}

	function axes(f, o, x, y) {
		const ticks = (a) => (v) => a.log ? (/^1(0*|e.*)$/.test(String(Number(v.toPrecision(3)))) || v < 1 && /^0\.0*1$/.test(String(Number(v.toPrecision(3)))) ? num(v) : "") : num(v);
		f.g.append("g").attr("class", "grid").call(d3.svg.axis().scale(y).orient("left").ticks(5).tickSize(-f.w).tickFormat(""));
		f.g.append("g").attr("class", "axis").attr("transform", "translate(0," + f.h + ")")
			.call(d3.svg.axis().scale(x).orient("bottom").ticks(7).tickFormat(ticks(o.x)));
		f.g.append("g").attr("class", "axis").call(d3.svg.axis().scale(y).orient("left").ticks(5).tickFormat(ticks(o.y)));
		f.svg.append("text").attr("x", (o.left || MARGIN.left) + f.w / 2).attr("y", (o.height || HEIGHT) - 6).attr("text-anchor", "middle").text(o.x.label || "");
		f.svg.append("text").attr("transform", "translate(12," + (MARGIN.top + f.h / 2) + ") rotate(-90)").attr("text-anchor", "middle").text(o.y.label || "");
	}

	function legend(series, shape) {
		const list = el("ul", { class: "legend" });
		series.forEach((s, i) => {
			const svg = d3.select(document.createElementNS("http://www.w3.org/2000/svg", "svg")).attr("viewBox", "0 0 26 10").attr("aria-hidden", "true");
			if (shape === "line")
				svg.append("line").attr("class", "line s" + i % SERIES).attr("x1", 0).attr("x2", 26).attr("y1", 5).attr("y2", 5);
			else
				svg.append("rect").attr("class", "bar f" + i % SERIES).attr("width", 26).attr("height", 10);
			list.append(el("li", {}, svg.node(), s.name));
		});
		return list;
	}

	function figure(o, svg, shape, rows, columns) {
		const parts = [el("figcaption", {}, o.title)];
		if (o.note)
			parts.push(el("p", { class: "note" }, o.note));
		parts.push(svg.node());
		if (o.series && o.series.length > 1)
			parts.push(legend(o.series, shape));
		/* o.lazy: charts that are drawn again and again make their table when somebody opens it. */
		const details = el("details", {}, el("summary", {}, "Table: " + o.title), o.lazy ? null : table(rows, columns, o.title));
		if (o.lazy)
			details.addEventListener("toggle", () => details.open && !details.querySelector("table") && details.append(table(rows, columns, o.title)));
		parts.push(details);
		return el("figure", {}, ...parts);
	}

	function flat(series) {
		return [].concat(...series.map((s) => s.points.map((p) => ({ name: s.name, x: p[0], y: p[1] }))));
	}

	function seriesColumns(o) {
		return [{ label: o.of || "series", get: (r) => r.name }, { label: o.x.label || "x", num: true, get: (r) => r.x },
			{ label: o.y.label || "y", num: true, get: (r) => r.y }];
	}

	/* o: {title, note, x: {label, log, min, max, exact}, y: likewise, series: [{name, points: [[x, y]]}], step, marks: [{x, label}]} */
	function lines(o) {
		const f = frame(o, "line chart"), all = flat(o.series);
		const x = scale(o.x, all.map((p) => p.x), [0, f.w]), y = scale(o.y, all.map((p) => p.y), [f.h, 0]);
		const draw = d3.svg.line().defined((p) => p[1] !== null && isFinite(p[1]) && (!o.y.log || p[1] > 0) && (!o.x.log || p[0] > 0))
			.x((p) => x(p[0])).y((p) => y(p[1])).interpolate(o.step ? "step-after" : "linear");

		axes(f, o, x, y);
		o.series.forEach((s, i) => f.g.append("path").attr("class", "line s" + i % SERIES).attr("d", draw(s.points)).append("title").text(s.name));
		(o.marks || []).forEach((m) => {
			f.g.append("line").attr("class", "mark").attr("x1", x(m.x)).attr("x2", x(m.x)).attr("y1", 0).attr("y2", f.h);
			f.g.append("text").attr("x", x(m.x) + 3).attr("y", 9).text(m.label);
		});
		return figure(o, f.svg, "line", all, seriesColumns(o));
	}

	/* o as for lines; points: [x, y, label] */
	function points(o) {
		const f = frame(o, "scatter chart"), all = [].concat(...o.series.map((s) => s.points.map((p) => ({ name: p[2] || s.name, x: p[0], y: p[1] }))));
		const x = scale(o.x, all.map((p) => p.x), [0, f.w]), y = scale(o.y, all.map((p) => p.y), [f.h, 0]);
		const symbols = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"];

		axes(f, o, x, y);
		(o.lines || []).forEach((l) => {
			f.g.append("line").attr("class", "mark").attr("x1", 0).attr("x2", f.w).attr("y1", y(l.y)).attr("y2", y(l.y));
			f.g.append("text").attr("x", f.w).attr("y", y(l.y) - 4).attr("text-anchor", "end").text(l.label);
		});
		o.series.forEach((s, i) => s.points.forEach((p) => {
			if (p[0] === null || p[1] === null)
				return;
			f.g.append("path").attr("class", "dot f" + i % SERIES).attr("transform", "translate(" + x(p[0]) + "," + y(p[1]) + ")")
				.attr("d", d3.svg.symbol().type(symbols[i % symbols.length]).size(70)()).append("title").text((p[2] || s.name) + ": " + num(p[0]) + ", " + num(p[1]));
			if (o.labels)
				f.g.append("text").attr("x", x(p[0]) + (x(p[0]) > f.w * 0.75 ? -7 : 7)).attr("text-anchor", x(p[0]) > f.w * 0.75 ? "end" : "start")
					.attr("y", y(p[1]) + 4).text(p[2] || s.name);
		}));
		return figure(o, f.svg, "dot", all, seriesColumns(o));
	}

	/* Lying bars: o: {title, note, x: {label, ...}, bars: [{name, value, low, high, kind}], zero} */
	function bars(o) {
		const n = o.bars.length, left = Math.min(240, 14 + 6.2 * d3.max(o.bars.map((b) => b.name.length).concat(4)));
		const f = frame({ ...o, left, height: MARGIN.top + MARGIN.bottom + Math.max(60, n * 20) }, "bar chart");
		const x = scale({ min: o.x.min !== undefined ? o.x.min : Math.min(0, d3.min(o.bars, (b) => Math.min(b.value, b.low === undefined || b.low === null ? b.value : b.low))), ...o.x },
			[].concat(...o.bars.map((b) => [b.value, b.low, b.high])), [0, f.w]);
		const y = d3.scale.ordinal().domain(d3.range(n)).rangeRoundBands([0, f.h], 0.25), zero = x(Math.max(x.domain()[0], 0));

		f.g.append("g").attr("class", "grid").attr("transform", "translate(0," + f.h + ")").call(d3.svg.axis().scale(x).orient("bottom").ticks(6).tickSize(-f.h).tickFormat(""));
		f.g.append("g").attr("class", "axis").attr("transform", "translate(0," + f.h + ")").call(d3.svg.axis().scale(x).orient("bottom").ticks(6).tickFormat((v) => num(v)));
		f.svg.append("text").attr("x", left + f.w / 2).attr("y", MARGIN.top + f.h + 34).attr("text-anchor", "middle").text(o.x.label || "");
		o.bars.forEach((b, i) => {
			const mid = y(i) + y.rangeBand() / 2;
			f.g.append("text").attr("x", -6).attr("y", mid + 4).attr("text-anchor", "end").text(b.name.length > 36 ? b.name.slice(0, 34) + "…" : b.name);
			if (b.value === null || b.value === undefined)
				return;
			f.g.append("rect").attr("class", "bar f" + (b.kind || 0) % SERIES).attr("x", Math.min(zero, x(b.value))).attr("y", y(i))
				.attr("width", Math.max(1, Math.abs(x(b.value) - zero))).attr("height", y.rangeBand()).append("title").text(b.name + ": " + num(b.value));
			if (typeof b.low === "number" && typeof b.high === "number")
				f.g.append("path").attr("class", "whisker").attr("d", "M" + x(b.low) + "," + mid + "H" + x(b.high) + "M" + x(b.low) + "," + (mid - 4) + "v8M" + x(b.high) + "," + (mid - 4) + "v8");
		});
		if (o.zero)
			f.g.append("line").attr("class", "mark").attr("x1", zero).attr("x2", zero).attr("y1", 0).attr("y2", f.h);
		const columns = [{ label: o.of || "name", get: (b) => b.name }, { label: o.x.label || "value", num: true, get: (b) => b.value }];
		if (o.bars.some((b) => typeof b.low === "number"))
			columns.push({ label: "low", num: true, get: (b) => b.low }, { label: "high", num: true, get: (b) => b.high });
		return figure({ ...o, series: null }, f.svg, "bar", o.bars, columns);
	}

	/* A line without axes into an <svg class="spark">; null is a gap. */
	function spark(svg, values) {
		const s = d3.select(svg), good = values.filter((v) => v !== null), hi = d3.max(good) || 1;
		const x = d3.scale.linear().domain([0, Math.max(1, values.length - 1)]).range([1, 89]), y = d3.scale.linear().domain([0, hi]).range([20, 2]);
		const d = d3.svg.line().defined((v) => v !== null).x((v, i) => x(i)).y((v) => y(v))(values);
		let path = s.select("path");

		if (path.empty())
			path = s.append("path").attr("class", "line s0");
		path.attr("d", good.length ? d : "M1,20H89");
	}

	/* Light, dark, or what the system says; kept where the browser allows it. */
	function theme(button) {
		const names = ["auto", "light", "dark"], root = document.documentElement;
		let now = "auto";

		function show() {
			if (now === "auto")
				delete root.dataset.theme;
			else
				root.dataset.theme = now;
			button.textContent = "Theme: " + now;
		}
		try {
			now = names.includes(localStorage.getItem("pdctl-theme")) ? localStorage.getItem("pdctl-theme") : "auto";
		} catch (e) {
			now = "auto";
		}
		button.addEventListener("click", () => {
			now = names[(names.indexOf(now) + 1) % names.length];
			try {
				localStorage.setItem("pdctl-theme", now);
			} catch (e) {
				/* a page from disk may have no storage */
			}
			show();
		});
		show();
	}

	return { el, num, table, compare, lines, points, bars, spark, theme };
})();
