/* Reports of bench, simulate and compare: the verdict first, then what answers the command's question. The data is the document that
 * programs read. */
"use strict";
(function () {
	const { el, num } = pd, data = document.getElementById("data"), main = document.getElementById("report");
	const LABELS = { ttft: "Time to first token", itl: "Between tokens", e2el: "End to end" };

	function add(...nodes) {
		main.append(...nodes.filter((n) => n));
	}

	function section(title, note, ...nodes) {
		const list = nodes.filter((n) => n);
		if (list.length)
			add(el("h2", {}, title), note ? el("p", { class: "note" }, note) : null, ...list);
	}

	function charts(...nodes) {
		const list = nodes.filter((n) => n);
		return list.length ? el("div", { class: "charts" }, ...list) : null;
	}

	function verdict(kind, text, ...more) {
		add(el("section", { class: "verdict " + kind, "aria-label": "verdict" }, el("strong", {}, text), ...more.filter((m) => m).map((m) => el("p", {}, m))));
	}

	function what(text) {
		document.getElementById("what").textContent = text;
	}

	const text = (label, get, more) => ({ label, get, ...more }), number = (label, get, more) => ({ label, num: true, get, ...more });

	/* -- bench -- */

	/* Percent of the values below v, between two points of the curve. */
	function below(curve, v) {
		let i = d3.bisector((p) => p[0]).right(curve, v);
		if (i === 0)
			return 0;
		if (i === curve.length)
			return 100;
		const a = curve[i - 1], b = curve[i];
		return b[0] > a[0] ? a[1] + (b[1] - a[1]) * (v - a[0]) / (b[0] - a[0]) : a[1];
	}

	/* A histogram with steps of equal width on a logarithmic axis. */
	function shape(s) {
		const n = 30, positive = s.cdf.filter((p) => p[0] > 0);
		if (!positive.length)
			return [];
		const lo = Math.log10(positive[0][0]) - 0.001, hi = Math.max(lo + 0.01, Math.log10(positive[positive.length - 1][0]) + 0.001), at = (i) => 10 ** (lo + (hi - lo) * i / n);
		return d3.range(n).map((i) => [at(i), s.count * (below(s.cdf, at(i + 1)) - below(s.cdf, at(i))) / 100]).concat([[at(n), 0]]);
	}

	function distributions(docs, names) {
		const parts = [];
		for (const k of ["ttft", "itl", "e2el"]) {
			const series = docs.map((d, i) => ({ name: names[i], s: d.distributions[k] })).filter((s) => s.s);
			if (!series.length)
				continue;
			parts.push(pd.lines({ title: LABELS[k] + ": cumulative", x: { label: "ms", log: true }, y: { label: "% of " + (k === "itl" ? "tokens" : "requests"), min: 0, max: 100 }, of: "run",
				series: series.map((s) => ({ name: s.name, points: s.s.cdf })) }));
			parts.push(pd.lines({ title: LABELS[k] + ": histogram", x: { label: "ms", log: true }, y: { label: k === "itl" ? "tokens" : "requests", min: 0 }, of: "run", step: true,
				series: series.map((s) => ({ name: s.name, points: shape(s.s) })) }));
		}
		return charts(...parts);
	}

	function benchName(d, i, docs) {
		const p = d.pdctl || {};
		if (docs.length === 1)
			return d.label || "run";
		return (p.ab ? p.ab + ": " : "") + (d.label && !p.ab ? d.label + " " : "") + (typeof d.request_rate === "number" ? num(d.request_rate) + "/s" : "run " + (i + 1));
	}

	function timeline(t) {
		if (!t)
			return null;
		const at = (list) => list.map((v, i) => [i * t.step_s, v]);
		return charts(
			pd.lines({ title: "Requests over time", x: { label: "s since the start" }, y: { label: "requests in a step of " + num(t.step_s) + " s", min: 0 }, step: true,
				series: [{ name: "sent", points: at(t.sent) }, { name: "ended", points: at(t.ended) }, { name: "failed", points: at(t.failed) }] }),
			pd.lines({ title: "In flight", x: { label: "s since the start" }, y: { label: "requests", min: 0 }, series: [{ name: "in flight", points: at(t.in_flight) }] }),
			t.workers.length ? pd.lines({ title: "Load per worker over time", note: t.more_workers ? "The first " + t.workers.length + " workers." : null,
				x: { label: "s since the start" }, y: { label: "requests in flight", min: 0 }, of: "worker", series: t.workers.map((w) => ({ name: w.name, points: at(w.in_flight) })) }) : null);
	}

	/* One lane a session: a bar from sending to the last token, with the wait for the first token apart. */
	function lanes(t) {
		if (!t || !t.lanes || !t.lanes.length)
			return null;
		const W = 960, row = 14, left = 150, top = 8, rows = t.lanes.length, end = d3.max(t.lanes, (l) => d3.max(l.requests, (r) => r[2])) || 1;
		const svg = d3.select(document.createElementNS("http://www.w3.org/2000/svg", "svg")).attr("viewBox", "0 0 " + W + " " + (top + rows * row + 36)).attr("role", "img").attr("aria-label", "sessions over time");
		const x = d3.scale.linear().domain([0, end]).range([left, W - 12]).nice();
		const workers = [...new Set([].concat(...t.lanes.map((l) => l.requests.map((r) => r[3]))))].sort();
		svg.append("g").attr("class", "axis").attr("transform", "translate(0," + (top + rows * row) + ")").call(d3.svg.axis().scale(x).orient("bottom").ticks(8));
		svg.append("text").attr("x", W / 2).attr("y", top + rows * row + 32).attr("text-anchor", "middle").text("s since the start");
		t.lanes.forEach((l, i) => {
			svg.append("text").attr("x", left - 6).attr("y", top + i * row + 10).attr("text-anchor", "end").text(l.session.length > 22 ? l.session.slice(0, 20) + "…" : l.session);
			for (const r of l.requests) {
				const kind = Math.max(0, workers.indexOf(r[3])) % 8;
				svg.append("rect").attr("class", "bar f" + kind).attr("opacity", 0.4).attr("x", x(r[0])).attr("y", top + i * row + 2).attr("height", row - 4).attr("width", Math.max(0.5, x(r[1]) - x(r[0])));
				svg.append("rect").attr("class", "bar f" + kind).attr("x", x(r[1])).attr("y", top + i * row + 2).attr("height", row - 4).attr("width", Math.max(1, x(r[2]) - x(r[1])))
					.append("title").text(l.session + ": " + num(r[0]) + " to " + num(r[2]) + " s" + (r[3] ? ", " + r[3] : "") + (r[4] ? "" : ", failed"));
			}
		});
		const list = [].concat(...t.lanes.map((l) => l.requests.map((r) => ({ session: l.session, r }))));
		return el("figure", { class: "wide" }, el("figcaption", {}, "Sessions"), el("p", { class: "note" }, "Pale: until the first token. Colours: the worker" + (t.more_sessions ? "; the first " + t.lanes.length + " sessions." : ".")),
			svg.node(), el("details", {}, el("summary", {}, "Table: Sessions"), pd.table(list, [text("session", (v) => v.session), number("sent, s", (v) => v.r[0]), number("first token, s", (v) => v.r[1]),
				number("end, s", (v) => v.r[2]), text("worker", (v) => v.r[3]), text("outcome", (v) => v.r[4] ? "ok" : "failed")], "Sessions")));
	}

	function bench(doc) {
		const docs = doc.runs, names = docs.map(benchName), all = (f) => d3.sum(docs, f);
		const failed = all((d) => d.failed), done = all((d) => d.completed), client = docs.every((d) => !d.pdctl || d.pdctl.client_ok !== false);
		const verify = docs.map((d) => d.pdctl && d.pdctl.verify).filter((v) => v), first = docs[0];

		what([first.model_id || first.model, first.date, docs.length > 1 ? docs.length + " runs" : null].filter((v) => v).join(", "));
		const kind = done === 0 || verify.some((v) => v.verdict === "FAIL" || v.verdict === "fail") ? "bad" : failed || !client ? "warn" : "good";
		verdict(kind, done + " of " + (done + failed) + " requests succeeded" + (docs.length === 1 ? ", " + num(first.request_throughput) + " requests/s, " + num(first.output_throughput) + " output tokens/s" : " in " + docs.length + " runs") + ".",
			docs.length === 1 ? "Time to first token: median " + num(first.median_ttft_ms) + " ms, p99 " + num(first.p99_ttft_ms) + " ms. Between tokens: median " + num(first.median_itl_ms) + " ms, p99 " + num(first.p99_itl_ms) + " ms." : null,
			client ? null : "The client was too busy: its own delays are in these figures.",
			...verify.map((v) => "Session affinity: " + v.verdict + (v.reason ? ", " + v.reason : "") + "."));
		const figures = [...new Set([].concat(...docs.map((d) => Object.keys(d))))].filter((k) => /_(ms|throughput|goodput)$|^(duration|completed|failed|total_|max_)/.test(k) && docs.some((d) => typeof d[k] === "number"));
		section("Figures", null, pd.table(figures.map((k) => ({ k })), [text("figure", (r) => r.k), ...docs.map((d, i) => number(names[i], (r) => d[r.k]))], "Figures"));
		if (docs.length > 1)
			section("Throughput against latency", "Each point is a run; up and to the left is better.", charts(
				pd.points({ title: "p99 time to first token against throughput", x: { label: "p99 time to first token, ms", log: true }, y: { label: "requests/s", min: 0 }, labels: docs.length <= 12,
					series: [{ name: "runs", points: docs.map((d, i) => [d.p99_ttft_ms, d.request_throughput, names[i]]) }] }),
				pd.points({ title: "p99 between tokens against output throughput", x: { label: "p99 between tokens, ms", log: true }, y: { label: "output tokens/s", min: 0 }, labels: docs.length <= 12,
					series: [{ name: "runs", points: docs.map((d, i) => [d.p99_itl_ms, d.output_throughput, names[i]]) }] })));
		section("Distributions", "Logarithmic axes. " + (docs.length > 8 ? "The first eight runs." : ""), distributions(docs.slice(0, 8), names));
		section("Over time", docs.length > 1 ? "The last run." : null, timeline(doc.timeline), lanes(doc.timeline));
	}

	/* -- simulate -- */

	function pools(d) {
		return Object.entries(d.pdctl.pools || {});
	}

	function simulate(doc) {
		const arms = doc.pdctl.arms || [doc], several = (f) => new Set(arms.map(f)).size > 1;
		const name = (d) => d.pdctl.policy + (several((a) => a.pdctl.workers) ? ", " + d.pdctl.workers + " workers" : "") + (several((a) => a.pdctl.cache_blocks) ? ", cache " + d.pdctl.cache_blocks : "") +
			(several((a) => a.pdctl.scenario || a.pdctl.source) ? ", " + (d.pdctl.scenario || d.pdctl.source) : "");
		const names = arms.map(name), expected = [].concat(...arms.map((d, i) => (d.pdctl.expectations || []).map((e) => ({ ...e, arm: names[i] }))));
		const missed = expected.filter((e) => !e.ok), failed = d3.sum(arms, (d) => d.failed), timed = arms.filter((d) => typeof d.mean_ttft_ms === "number");
		const best = timed.length > 1 ? timed.reduce((a, b) => b.mean_ttft_ms < a.mean_ttft_ms ? b : a) : null;

		what([arms[0].pdctl.source, arms.length + (arms.length === 1 ? " replay" : " replays"), "simulated"].filter((v) => v).join(", "));
		verdict(missed.length ? "bad" : failed ? "warn" : "good",
			expected.length ? missed.length ? missed.length + " of " + expected.length + " expectations were not met." : "All " + expected.length + " expectations were met." :
				best ? "Lowest mean time to first token: " + name(best) + ", " + num(best.mean_ttft_ms) + " ms." : arms.length + (arms.length === 1 ? " replay." : " replays."),
			failed ? failed + " requests did not complete." : null, arms[0].pdctl.caveat ? "Simulated: " + arms[0].pdctl.caveat + "." : "Simulated.");
		if (expected.length)
			section("Expectations", null, pd.table(expected, [text("expectation", (e) => e.text), text("replay", (e) => e.arm), text("pool", (e) => e.pool), number("found", (e) => e.value), number("bound", (e) => e.bound), text("", (e) => e.ok ? "met" : "MISSED")], "Expectations"));
		const rows = [].concat(...arms.map((d, i) => pools(d).map(([pool, p]) => ({ arm: names[i], pool, p, d }))));
		const has = (f) => rows.some((r) => typeof f(r) === "number");
		const figure = [number("sticky", (r) => r.p.stickiness), number("consistent sessions", (r) => r.p.session_consistency), number("peak/mean requests", (r) => r.p.peak_to_mean),
			number("token hit rate", (r) => r.p.token_hit_rate), number("idle workers", (r) => r.p.idle_workers), number("keys moved, leave", (r) => r.p.keys_moved_leave), number("mean first token, ms", (r) => r.d.mean_ttft_ms),
			number("p99 first token, ms", (r) => r.d.p99_ttft_ms), number("mean per token, ms", (r) => r.d.mean_tpot_ms), number("p99 end to end, ms", (r) => r.d.p99_e2el_ms), number("failed", (r) => r.d.failed)].filter((c) => has(c.get));
		section("Replays", null, pd.table(rows, [text("replay", (r) => r.arm), text("pool", (r) => r.pool), ...figure], "Replays"));
		const peak = figure.find((c) => c.label === "peak/mean requests"), sticky = figure.find((c) => c.label === "sticky");
		const kinds = [...new Set(rows.map((r) => r.pool))], floor = rows.map((r) => r.p.floor_peak_to_mean).filter((v) => v > 0);
		section("Balance against stickiness", "To the right: follow-up requests find the worker that knows their session. Down: the load is even. The dashed line is what a perfect hash reaches with these sessions (balls in bins).",
			charts(peak && sticky ? pd.points({ title: "Policies", x: { label: "stickiness, share of follow-up requests", min: 0, max: 1 }, y: { label: "peak/mean of requests", min: 1 }, labels: rows.length <= 20, of: "replay",
				series: kinds.map((k) => ({ name: k, points: rows.filter((r) => r.pool === k).map((r) => [sticky.get(r), peak.get(r), r.arm]) })), lines: floor.length ? [{ y: d3.median(floor), label: "perfect hash" }] : [] }) : null));
		const bars = (title, key, label) => timed.length && typeof timed[0][key] === "number" ? pd.bars({ title, x: { label, min: 0 }, of: "replay", bars: timed.map((d) => ({ name: name(d), value: d[key] })) }) : null;
		section("Latencies", "Of a simulated engine: trust the order before the size.", charts(bars("Mean time to first token", "mean_ttft_ms", "ms"), bars("p99 time to first token", "p99_ttft_ms", "ms"), bars("Mean time per output token", "mean_tpot_ms", "ms"), bars("p99 end to end", "p99_e2el_ms", "ms")));
		section("Hit rate", null, charts(has((r) => r.p.token_hit_rate) ? pd.bars({ title: "Tokens found in the prefix cache", x: { label: "share", min: 0, max: 1 }, of: "replay", bars: rows.filter((r) => typeof r.p.token_hit_rate === "number").map((r) => ({ name: r.arm + (r.pool === "workers" ? "" : ", " + r.pool), value: r.p.token_hit_rate })) }) : null));
		section("Load per worker", arms.length > 8 ? "The first eight replays." : null, charts(...rows.slice(0, 8).map((r) => r.p.per_worker && r.p.per_worker.length ? pd.bars({ title: r.arm + (r.pool === "workers" ? "" : ", " + r.pool), x: { label: "requests", min: 0 }, of: "worker",
			bars: r.p.per_worker.slice(0, 64).map((w) => ({ name: w.name, value: w.requests })) }) : null)));
		overTime(arms.slice(0, 8), names);
		if (arms.length > 1 && timed.length > 1 && timed.some((d) => d.pdctl.pareto))
			section("Pareto front", "Replays that no other one beats in everything at once.", charts(pd.points({ title: "Output throughput against p99 time to first token", x: { label: "p99 time to first token, ms" }, y: { label: "output tokens/s" }, labels: timed.length <= 16, of: "replay",
				series: [{ name: "on the front", points: timed.filter((d) => d.pdctl.pareto).map((d) => [d.p99_ttft_ms, d.output_throughput, name(d)]) }, { name: "others", points: timed.filter((d) => !d.pdctl.pareto).map((d) => [d.p99_ttft_ms, d.output_throughput, name(d)]) }].filter((s) => s.points.length) })));
	}

	/* Figures of equal slices of time, and where workers failed, left and joined. */
	function overTime(arms, names) {
		const list = arms.map((d, i) => ({ name: names[i], t: d.pdctl.time, d })).filter((s) => s.t && s.t.arrivals);
		if (!list.length)
			return;
		const t = list[0].t, at = (t, i) => t.start_s + (i + 0.5) * t.slice_s;
		const marks = (list[0].d.pdctl.events || []).map((e) => {
			let sum = 0, i = 0;
			if (typeof e.at_ms === "number")
				return { x: e.at_ms / 1000, label: e.action + " " + e.worker };
			while (i < t.arrivals.length && sum < e.at_request)
				sum += t.arrivals[i++];
			return { x: t.start_s + i * t.slice_s, label: e.action + " " + e.worker };
		});
		const chart = (title, key, label, more) => list.some((s) => (s.t[key] || []).some((v) => typeof v === "number")) ? pd.lines({ title, x: { label: "s" }, y: { label, min: 0, ...more }, of: "replay", marks,
			series: list.map((s) => ({ name: s.name, points: s.t[key].map((v, i) => [at(s.t, i), typeof v === "number" ? v : null]) })) }) : null;
		section("Over time", marks.length ? "Dashed lines: " + marks.map((m) => m.label).join(", ") + "." : null, charts(chart("Hit rate", "token_hit_rate", "share of tokens", { max: 1 }), chart("Peak/mean of requests in flight over the workers", "peak_to_mean_in_flight", "peak/mean"),
			chart("In flight", "in_flight", "requests"), chart("Mean time to first token", "mean_ttft_ms", "ms")));
	}

	/* -- compare -- */

	function compare(doc) {
		const parts = doc.settings || [doc], code = doc.exit_code, gates = [].concat(...parts.map((p) => p.gates.map((g) => ({ ...g, setting: p.setting || "" }))));
		const bad = gates.filter((g) => g.verdict === "fail"), unsure = gates.filter((g) => g.verdict === "inconclusive"), reasons = [].concat(...parts.map((p) => p.not_comparable || []));
		const words = { 0: gates.length ? (gates.length === 1 ? "The gate passed." : "All " + gates.length + " gates passed.") : "Compared; no gate was set.", 1: bad.length + " of " + gates.length + " gates failed.", 3: "These runs are not comparable.", 4: "Inconclusive: these runs cannot decide the gates." };

		what(parts[0].sides.map((s) => s.label + ": " + s.runs.length + (s.runs.length === 1 ? " run" : " runs")).join(", "));
		verdict(code === 0 ? "good" : code === 4 ? "warn" : "bad", words[code] || "Exit code " + code + ".", ...reasons, ...bad.map((g) => g.gate + ": " + g.why), ...unsure.map((g) => g.gate + ": " + g.why));
		if (gates.length)
			section("Gates", null, pd.table(gates, [text("gate", (g) => g.gate), text("setting", (g) => g.setting), text("side", (g) => g.side), text("verdict", (g) => g.verdict), text("method", (g) => g.method), text("why", (g) => g.why, { wrap: true }), text("outlook", (g) => g.outlook, { wrap: true })], "Gates"));
		for (const p of parts) {
			const at = p.setting ? " at " + p.setting : "", base = p.sides[0].label;
			if (!p.metrics.length)
				continue;
			p.sides.slice(1).forEach((s, k) => {
				const rows = p.metrics.map((m) => ({ m, base: m.sides[0], now: m.sides[k + 1], ch: m.changes[k] })).filter((r) => r.ch);
				const drawn = rows.filter((r) => typeof r.ch.change_pct === "number");
				section("Change from " + base + " to " + s.label + at, "Whiskers: the " + num(100 - 100 * doc.alpha) + " % interval. Better and worse are the metric's own direction.",
					charts(drawn.length ? pd.bars({ title: "Change" + at, x: { label: "%" }, of: "metric", zero: true,
						bars: drawn.map((r) => ({ name: r.m.metric, value: r.ch.change_pct, low: r.ch.low_pct, high: r.ch.high_pct, kind: r.ch.verdict === "worse" ? 1 : r.ch.verdict === "better" ? 2 : 7 })) }) : null),
					pd.table(rows, [text("metric", (r) => r.m.metric), text("unit", (r) => r.m.unit), number(base, (r) => r.base.median), number(s.label, (r) => r.now.median), number("change, %", (r) => r.ch.change_pct), number("low", (r) => r.ch.low_pct), number("high", (r) => r.ch.high_pct),
						number("p", (r) => r.ch.p), text("verdict", (r) => r.ch.verdict), text("basis", (r) => r.ch.basis)], "Change from " + base + " to " + s.label + at));
			});
			const many = p.metrics.filter((m) => m.sides.some((s) => s.values.length > 1)).slice(0, 8);
			section("Runs" + at, "Each point is a run.", charts(...many.map((m) => pd.points({ title: m.metric, x: { label: "run", min: 0 }, y: { label: m.unit || m.metric }, of: "side",
				series: m.sides.map((s, i) => ({ name: p.sides[i].label, points: s.values.map((v, j) => [j + 1, v]) })) }))));
			section("Notes" + at, null, p.notes && p.notes.length ? el("ul", {}, ...p.notes.map((n) => el("li", {}, n))) : null);
		}
	}

	pd.theme(document.getElementById("theme"));
	const kinds = { bench, simulate, compare };
	kinds[data.dataset.kind](JSON.parse(data.textContent));
})();
