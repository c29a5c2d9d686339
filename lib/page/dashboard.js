/* The router's page: a stream of states and decisions becomes tables and charts. Texts of clients and workers are set as text. */
"use strict";
(function () {
	const { el, num } = pd, $ = (id) => document.getElementById(id);
	const KEEP = 120, WINDOW = 5, ROWS = 100, KEPT = 300, KEYS = 5, CHART_EVERY = 2;
	const workers = new Map(); /* by role and name */
	const history = []; /* of the whole router: {t, in_flight, queued, requests, tokens} */
	let decisions = [], state = null, paused = false, searching = "", order = { by: 0, up: true }, ticks = 0, missed = 0;

	/* -- figures -- */

	/* The change of a count per second over the last seconds. */
	function rate(samples, name) {
		const b = samples[samples.length - 1], a = samples[Math.max(0, samples.length - 1 - WINDOW)];
		return a && b && b.at > a.at ? Math.max(0, (b[name] - a[name]) * 1000 / (b.at - a.at)) : null;
	}

	/* The mean of what was added between two samples. */
	function mean(a, b, sum, n) {
		return a && b && b[n] > a[n] ? (b[sum] - a[sum]) / (b[n] - a[n]) / 1000 : null;
	}

	function means(samples, sum, n) {
		return samples.slice(1).map((s, i) => mean(samples[i], s, sum, n));
	}

	function last(values) {
		for (let i = values.length - 1; i >= 0; i--)
			if (values[i] !== null)
				return values[i];
		return null;
	}

	function cached(samples) {
		const a = samples[0], b = samples[samples.length - 1];
		if (b.prompt_tokens > a.prompt_tokens)
			return (b.cached_tokens - a.cached_tokens) / (b.prompt_tokens - a.prompt_tokens);
		return b.prompt_tokens > 0 ? b.cached_tokens / b.prompt_tokens : null;
	}

	/* -- the table of workers -- */

	const percent = (v) => v === null ? "–" : num(100 * v, 1) + " %";
	const columns = [
		{ label: "role", get: (w) => w.now.role },
		{ label: "worker", get: (w) => w.now.name, small: (w) => w.now.url !== w.now.name ? w.now.url : "" },
		{ label: "state", get: (w) => w.now.state, small: (w) => w.now.why || (w.now.last_failure ? "last failure: " + w.now.last_failure : ""),
			kind: (w) => w.now.state === "available" ? "good" : /drain|start|busy|remov/.test(w.now.state) ? "warn" : "bad" },
		{ label: "breaker", get: (w) => w.now.breaker },
		{ label: "in flight", num: true, get: (w) => w.now.in_flight },
		{ label: "oldest silent, s", num: true, get: (w) => w.now.oldest_silent_s },
		{ label: "requests/s", num: true, get: (w) => w.requests, text: (w) => num(w.requests, 1) },
		{ label: "tokens/s", num: true, get: (w) => w.tokens, text: (w) => num(w.tokens, 0) },
		{ label: "first token, ms", num: true, get: (w) => last(w.first), text: (w) => num(last(w.first), 1), spark: (w) => w.first },
		{ label: "between tokens, ms", num: true, get: (w) => last(w.gap), text: (w) => num(last(w.gap), 2), spark: (w) => w.gap },
		{ label: "cached", num: true, get: (w) => w.cached, text: (w) => percent(w.cached) },
		{ label: "errors", num: true, get: (w) => w.now.errors },
		{ label: "", act: true },
	];

	function head() {
		const row = document.querySelector("#workers thead tr");
		columns.forEach((c, i) => {
			if (c.act) {
				row.append(el("th", { scope: "col" }, "action"));
				return;
			}
			const b = el("button", { type: "button" }, c.label), th = el("th", { scope: "col", class: c.num ? "num" : null }, b);
			b.addEventListener("click", () => {
				order = { by: i, up: order.by === i ? !order.up : !c.num };
				row.querySelectorAll("th").forEach((h) => h.removeAttribute("aria-sort"));
				th.setAttribute("aria-sort", order.up ? "ascending" : "descending");
				showWorkers();
			});
			row.append(th);
		});
	}

	function set(node, text) {
		if (node.textContent !== text)
			node.textContent = text;
	}

	function makeRow(w) {
		w.cells = columns.map((c) => {
			const td = el("td", { class: c.num ? "num" : null });
			if (c.act) {
				const b = el("button", { type: "button" }, "drain");
				b.addEventListener("click", () => act(w));
				td.append(b);
				return { td, button: b };
			}
			const value = el("span"), cell = { td, value };
			td.append(value);
			if (c.small) {
				cell.small = el("small");
				td.append(cell.small);
			}
			if (c.spark) {
				cell.svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
				cell.svg.setAttribute("class", "spark");
				cell.svg.setAttribute("viewBox", "0 0 90 22");
				cell.svg.setAttribute("aria-hidden", "true");
				td.append(" ", cell.svg);
			}
			return cell;
		});
		w.row = el("tr", {}, ...w.cells.map((c) => c.td));
	}

	function fillRow(w) {
		const draining = /drain/.test(w.now.state);
		columns.forEach((c, i) => {
			const cell = w.cells[i];
			if (c.act) {
				set(cell.button, draining ? "undrain" : "drain");
				cell.button.setAttribute("aria-label", (draining ? "undrain " : "drain ") + w.now.name);
				cell.button.disabled = !state.may_act || !$("key").value || w.now.state === "removing";
				return;
			}
			const v = c.get(w);
			set(cell.value, c.text ? c.text(w) : typeof v === "number" || v === null ? num(v) : v);
			if (c.kind)
				cell.value.className = c.kind(w);
			if (cell.small)
				set(cell.small, c.small(w));
			if (cell.svg)
				pd.spark(cell.svg, c.spark(w));
		});
	}

	function showWorkers() {
		const want = $("filter").value.trim().toLowerCase(), c = columns[order.by], body = document.querySelector("#workers tbody");
		const rows = [...workers.values()].filter((w) => !want || (w.now.role + " " + w.now.name + " " + w.now.url + " " + w.now.state).toLowerCase().includes(want));

		rows.sort((a, b) => pd.compare(c.get(a), c.get(b)) * (order.up ? 1 : -1) || pd.compare(a.now.name, b.now.name));
		rows.forEach((w) => {
			if (!w.row)
				makeRow(w);
			fillRow(w);
		});
		/* Rows move only when their order has changed, so that the focus stays. */
		if (rows.length !== body.children.length || rows.some((w, i) => body.children[i] !== w.row)) {
			const focus = document.activeElement;
			body.replaceChildren(...rows.map((w) => w.row));
			if (focus && body.contains(focus))
				focus.focus();
		}
	}

	function act(w) {
		const what = /drain/.test(w.now.state) ? "undrain" : "drain", status = $("acted");
		status.textContent = what + " " + w.now.name + " …";
		status.className = "soft";
		fetch("workers/" + encodeURIComponent(w.now.name) + "/" + what + "?role=" + encodeURIComponent(w.now.role),
			{ method: "POST", headers: { Authorization: "Bearer " + $("key").value } })
			.then((r) => r.json().then((j) => ({ ok: r.ok, j })))
			.then(({ ok, j }) => {
				status.textContent = ok ? what + " " + w.now.name + ": done" : what + " " + w.now.name + ": " + (j.error ? j.error.message : "refused");
				status.className = ok ? "good" : "bad";
			})
			.catch((e) => {
				status.textContent = what + " " + w.now.name + ": " + e.message;
				status.className = "bad";
			});
	}

	/* -- now -- */

	function tile(label, value) {
		return el("li", {}, el("span", { class: "soft" }, label), el("b", {}, value));
	}

	function showNow() {
		const list = [...workers.values()], up = list.filter((w) => w.now.state === "available").length;
		const total = history[history.length - 1];

		$("tiles").replaceChildren(
			tile("requests/s", num(rate(history, "requests"), 1)), tile("tokens/s", num(rate(history, "tokens"), 0)),
			tile("in flight", num(state.in_flight)), tile("queued", num(state.queued)),
			tile("workers available", up + " of " + list.length), tile("worker errors", num(total ? total.errors : null)));
		state.pools.filter((p) => p.shadow).forEach((p) => {
			const all = p.shadow.same + p.shadow.other + p.shadow.none;
			$("tiles").append(tile(p.role + ": shadow " + p.shadow.policy + " agrees", all ? percent(p.shadow.same / all) + " of " + all : "–"));
		});
		set($("summary"), "version " + state.version + ", " + state.mode + (state.draining ? ", draining" : "") + "; " +
			state.pools.map((p) => p.role + ": " + p.available + " of " + p.workers + ", policy " + p.policy).join("; "));
		if (!state.may_act) {
			$("key").disabled = true;
			set($("acted"), "Read only: the router was started without --admin-api-key-file.");
		}
		if (ticks % CHART_EVERY === 0)
			showCharts();
	}

	function showCharts() {
		const t0 = history[history.length - 1].at, x = { label: "seconds ago", min: -KEEP, max: 0, exact: true };
		const of = (f) => history.map((h, i) => [(h.at - t0) / 1000, f(h, i)]);
		const charts = [
			{ title: "Requests per second", lazy: true, x, y: { label: "requests/s", min: 0 }, series: [{ name: "requests/s", points: of((h, i) => rate(history.slice(0, i + 1), "requests")) }] },
			{ title: "In flight and queued", lazy: true, x, y: { label: "requests", min: 0 }, series: [{ name: "in flight", points: of((h) => h.in_flight) }, { name: "queued", points: of((h) => h.queued) }] },
		];
		replace($("charts"), charts.map((o) => pd.lines(o)));
	}

	/* New charts, with the tables that were open open again. */
	function replace(place, figures) {
		const open = [...place.querySelectorAll("figure")].map((f) => f.querySelector("details").open);
		figures.forEach((f, i) => {
			f.querySelector("details").open = !!open[i];
		});
		if (place.contains(document.activeElement))
			return;
		place.replaceChildren(...figures);
	}

	function showShares() {
		const keys = recentKeys(), place = $("shares"), seen = {};
		if (place.contains(document.activeElement))
			return;
		const parts = state.pools.map((p) => {
			const list = [...workers.values()].filter((w) => w.now.role === p.role);
			const picks = list.reduce((n, w) => n + w.now.picks, 0);
			seen[p.role] = true;
			return pd.bars({
				lazy: true,
				title: p.role + ": " + (p.by_key ? "share of keys, by " + p.policy : "share of decisions, by " + p.policy),
				note: p.by_key ? "Measured with " + p.probe_keys + " keys of our own; a fair share is " + percent(1 / Math.max(1, list.length)) + "."
					: "Since the start; the policy does not go by key alone. A fair share is " + percent(1 / Math.max(1, list.length)) + ".",
				x: { label: "share", min: 0 }, of: "worker",
				bars: list.map((w) => ({ name: w.now.name, value: p.by_key ? w.now.share : picks ? w.now.picks / picks : 0 })),
			});
		});
		replace(place, parts);
		const rows = [...keys.entries()].map(([k, v]) => ({ worker: k, keys: v.join(", ") }));
		if (rows.length)
			place.append(pd.table(rows, [{ label: "worker", get: (r) => r.worker }, { label: "recent keys", get: (r) => r.keys, wrap: true }], "Recent keys by worker"));
	}

	function recentKeys() {
		const found = new Map();
		for (const d of decisions)
			for (const p of d.key ? d.picks : []) {
				const list = found.get(p.worker) || [];
				if (list.length < KEYS && !list.includes(d.key))
					found.set(p.worker, list.concat(d.key));
			}
		return found;
	}

	/* -- decisions -- */

	function time(ms) {
		return new Date(ms).toLocaleTimeString("en-GB") + "." + String(ms % 1000).padStart(3, "0");
	}

	function scores(p) {
		if (p.candidates === null)
			return "too long to show";
		const list = p.candidates.slice().sort((a, b) => (b.worker === p.worker) - (a.worker === p.worker));
		return list.map((c) => c.worker + " " + (c.filter ? "filtered by " + c.filter : num(c.score))).join(", ");
	}

	const decisionColumns = [
		["time", (d) => time(d.at)], ["session key", (d) => d.key || "none"], ["role", (d, p) => p.role], ["worker", (d, p) => p.worker],
		["reason", (d, p) => p.reason + (p.home !== p.worker ? ", home is " + p.home : "") + (d.attempt ? ", attempt " + (d.attempt + 1) : "") + (p.shadow === undefined ? "" : p.shadow === p.worker ? ", shadow agrees" : ", shadow: " + (p.shadow || "none"))],
		["policy", (d, p) => p.policy], ["margin", (d, p) => num(p.margin)], ["scores", (d, p) => scores(p)], ["request", (d) => d.id],
	];

	function showDecisions(list) {
		const rows = [];
		for (const d of list)
			for (const p of d.picks)
				rows.push(el("tr", {}, ...decisionColumns.map(([, get], i) => el("td", { class: i === 6 ? "num" : [1, 4, 7, 8].includes(i) ? "wrap" : "whole" }, get(d, p)))));
		document.querySelector("#decisions tbody").replaceChildren(...rows.slice(0, ROWS));
	}

	function noteDecisions() {
		set($("decisions-note"), searching ? "Those whose key has “" + searching + "” in it." :
			"The newest " + ROWS + " since somebody looks at this page" + (missed ? "; " + missed + " more came too fast to be shown here, the search finds them." : "."));
	}

	function find(key) {
		searching = key;
		Promise.all([fetch("dashboard/where?key=" + encodeURIComponent(key)), fetch("dashboard/decisions?key=" + encodeURIComponent(key))])
			.then((rs) => Promise.all(rs.map((r) => r.json())))
			.then(([where, seen]) => {
				if (searching !== key)
					return;
				$("found").replaceChildren(...where.pools.map((p) => el("p", {}, el("b", {}, p.role + ": "), p.order === null
					? "policy " + p.policy + " does not go by key alone; the decisions below show where its requests went."
					: "policy " + p.policy + " asks " + p.order.map((o) => o.worker + (o.state === "available" ? "" : " (" + o.state + ")")).join(", then ") + ".")));
				if (!seen.decisions.length)
					$("found").append(el("p", { class: "soft" }, "No decision for such a key since somebody looks at this page."));
				showDecisions(seen.decisions);
				noteDecisions();
			})
			.catch((e) => $("found").replaceChildren(el("p", { class: "bad" }, e.message)));
	}

	/* -- the stream -- */

	function takeState(s) {
		const names = new Set();
		let requests = 0, tokens = 0, errors = 0;

		state = s;
		for (const now of s.workers) {
			const id = now.role + " " + now.name, w = workers.get(id) || { samples: [] };
			names.add(id);
			workers.set(id, w);
			now.at = s.at;
			w.now = now;
			if (w.samples.length && w.samples[w.samples.length - 1].requests > now.requests)
				w.samples = []; /* another router answers */
			if (!w.samples.length || w.samples[w.samples.length - 1].at < now.at)
				w.samples.push(now);
			if (w.samples.length > KEEP / 2)
				w.samples.shift();
			w.requests = rate(w.samples, "requests");
			w.tokens = rate(w.samples, now.role === "prefill" ? "prompt_tokens" : "completion_tokens");
			w.first = means(w.samples, "first_us", "first_n");
			w.gap = means(w.samples, "gap_us", "gap_n");
			w.cached = cached(w.samples);
			requests += now.role === "prefill" ? 0 : now.requests;
			tokens += now.completion_tokens;
			errors += now.errors;
		}
		for (const id of [...workers.keys()])
			if (!names.has(id))
				workers.delete(id);
		history.push({ at: s.at, in_flight: s.in_flight, queued: s.queued, requests, tokens, errors });
		if (history.length > KEEP)
			history.shift();
		if (paused || document.hidden)
			return;
		showNow();
		showWorkers();
		if (ticks++ % (2 * CHART_EVERY) === 0)
			showShares();
	}

	function takeDecisions(d) {
		missed += d.missed;
		decisions = d.decisions.reverse().concat(decisions).slice(0, KEPT);
		if (paused || document.hidden || searching)
			return;
		if (d.decisions.length || ticks < 3)
			showDecisions(decisions);
		noteDecisions();
	}

	function connect() {
		const stream = new EventSource("dashboard/live"), link = $("link");
		stream.addEventListener("open", () => {
			decisions = []; /* the last ones come again */
			link.textContent = "live";
			link.className = "good";
		});
		stream.addEventListener("error", () => {
			link.textContent = "no connection, trying again";
			link.className = "bad";
		});
		stream.addEventListener("state", (e) => takeState(JSON.parse(e.data)));
		stream.addEventListener("decisions", (e) => takeDecisions(JSON.parse(e.data)));
	}

	pd.theme($("theme"));
	head();
	decisionColumns.forEach(([label]) => document.querySelector("#decisions thead tr").append(el("th", { scope: "col" }, label)));
	$("pause").addEventListener("click", () => {
		paused = !paused;
		$("pause").setAttribute("aria-pressed", String(paused));
		set($("pause"), paused ? "Go on" : "Pause");
	});
	$("filter").addEventListener("input", () => state && showWorkers());
	$("filter-form").addEventListener("submit", (e) => e.preventDefault());
	$("act-form").addEventListener("submit", (e) => e.preventDefault());
	$("key").addEventListener("input", () => state && showWorkers());
	$("find-form").addEventListener("submit", (e) => {
		e.preventDefault();
		find($("find").value);
	});
	$("clear").addEventListener("click", () => {
		searching = "";
		$("find").value = "";
		$("found").replaceChildren();
		showDecisions(decisions);
		noteDecisions();
	});
	connect();
})();
