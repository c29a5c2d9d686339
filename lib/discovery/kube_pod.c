#include "lib/discovery/kube_pod.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json/scan.h"

/* -- selectors -- */

static bool is_label_text(struct span s, const char *more)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "-_.";

	for (size_t i = 0; i < s.n; i++)
		if (!strchr(plain, s.p[i]) && !strchr(more, s.p[i]))
			return false;
	return !memchr(s.p, '\0', s.n);
}

int kube_selector_add(struct kube_selector *s, const char *text, struct pd_msg *msg)
{
	const char *p = text;

	do {
		size_t n = strcspn(p, ",");
		const char *eq = memchr(p, '=', n);
		struct span name = {p, eq ? (size_t)(eq - p) : n},
			    value = {eq ? eq + 1 : p, eq ? n - name.n - 1 : 0};

		if (!eq || name.n == 0 || name.n > 317 || value.n > 63 ||
		    !is_label_text(name, "/") || !is_label_text(value, ""))
			return pd_fail(msg, PD_EINVAL,
				       "found '%.200s', expected NAME=VALUE of a label", text);
		if (s->n == KUBE_SELECTORS_MAX)
			return pd_fail(msg, PD_EINVAL, "found more than %d labels",
				       KUBE_SELECTORS_MAX);
		s->pair[s->n].name = name;
		s->pair[s->n++].value = value;
		p += n;
	} while (*p++ == ',');
	return PD_OK;
}

/* The value that the selector asks for; p NULL: it does not ask for this label. */
static struct span asked(const struct kube_selector *s, struct span name)
{
	for (size_t i = 0; i < s->n; i++)
		if (span_eq(s->pair[i].name, name))
			return s->pair[i].value;
	return (struct span){NULL, 0};
}

static int put_equal(struct buf *out, struct span name, struct span value)
{
	return buf_printf(out, "%s%.*s=%.*s", out->len ? "," : "", (int)name.n, name.p,
			  (int)value.n, value.p);
}

int kube_wanted_selector(const struct kube_wanted *w, struct buf *out)
{
	const struct kube_selector *p = &w->role[DISCOVERY_PREFILL],
				   *d = &w->role[DISCOVERY_DECODE];
	int err = PD_OK;

	for (size_t i = 0; !err && i < w->all.n; i++)
		err = put_equal(out, w->all.pair[i].name, w->all.pair[i].value);
	/* Of the roles: what both ask for, and where they differ either of the two. */
	for (size_t i = 0; !err && w->pd && i < p->n; i++) {
		struct span name = p->pair[i].name, one = p->pair[i].value, two = asked(d, name);

		if (two.p && span_eq(one, two))
			err = put_equal(out, name, one);
		else if (two.p)
			err = buf_printf(out, "%s%.*s in (%.*s,%.*s)", out->len ? "," : "",
					 (int)name.n, name.p, (int)one.n, one.p, (int)two.n, two.p);
	}
	return err;
}

/* -- a pod -- */

const char *kube_why_text(enum kube_why w)
{
	static const char *const texts[] = {
		[KUBE_TAKES] = "takes requests",   [KUBE_OTHER] = "has other labels now",
		[KUBE_GOING] = "is being deleted", [KUBE_PHASE] = "is not running",
		[KUBE_NOT_READY] = "is not ready", [KUBE_NO_IP] = "has no IP",
		[KUBE_GONE] = "was deleted",
	};

	return texts[w];
}

void kube_pod_release(struct kube_pod *p)
{
	route_labels_release(&p->w.labels);
}

/* The member of an object that was validated; p NULL: there is none of this type. */
static struct span member_of(struct span object, const char *name, enum json_type type)
{
	struct span found = {NULL, 0};
	struct json_member m;
	size_t at = 0;

	while (object.p && json_object_next(object, &at, &m))
		if (m.type == type && json_member_is(&m, name))
			found = m.value;
	return found;
}

/* Such a text, unescaped into out; false: there is none, or it does not fit. */
static bool text_of(struct span object, const char *name, char *out, size_t cap)
{
	struct span value = member_of(object, name, JSON_STRING);
	const char *p = value.p ? value.p + 1 : NULL;
	size_t n;

	if (!p || value.n - 2 + 4 > cap)
		return false;
	n = json_unescape(&p, value.p + value.n - 1, out, cap - 1);
	out[n] = '\0';
	return n > 0 && strlen(out) == n;
}

/* The same for what people read: as much as fits, control bytes as they are. */
static void cut_text(struct span object, const char *name, char *out, size_t cap)
{
	struct span value = member_of(object, name, JSON_STRING);
	const char *p = value.p ? value.p + 1 : NULL;
	size_t n = p ? json_unescape(&p, value.p + value.n - 1, out, cap - 1) : 0;

	out[n] = '\0';
}

static bool has(struct span object, const char *name)
{
	struct json_member m;
	size_t at = 0;

	while (object.p && json_object_next(object, &at, &m))
		if (json_member_is(&m, name) && m.type != JSON_NULL)
			return true;
	return false;
}

static bool matches(struct span labels, const struct kube_selector *s)
{
	char name[320], value[80];

	for (size_t i = 0; i < s->n; i++) {
		(void)snprintf(name, sizeof(name), "%.*s", (int)s->pair[i].name.n,
			       s->pair[i].name.p);
		if (!text_of(labels, name, value, sizeof(value)))
			value[0] = '\0';
		if (!span_eq(span_of(value), s->pair[i].value) ||
		    (!value[0] && !member_of(labels, name, JSON_STRING).p))
			return false;
	}
	return true;
}

static bool pick_role(const struct kube_wanted *w, struct span labels, enum discovery_role *role)
{
	if (!matches(labels, &w->all))
		return false;
	*role = DISCOVERY_REGULAR;
	if (!w->pd)
		return true;
	*role = DISCOVERY_PREFILL;
	if (matches(labels, &w->role[DISCOVERY_PREFILL]))
		return true;
	*role = DISCOVERY_DECODE;
	return matches(labels, &w->role[DISCOVERY_DECODE]);
}

static bool is_ready(struct span status)
{
	struct span list = member_of(status, "conditions", JSON_ARRAY), one;
	enum json_type type;
	char text[32];
	size_t at = 0;

	while (list.p && json_array_next(list, &at, &one, &type)) {
		if (type != JSON_OBJECT || !text_of(one, "type", text, sizeof(text)) ||
		    strcmp(text, "Ready") != 0)
			continue;
		return text_of(one, "status", text, sizeof(text)) && strcmp(text, "True") == 0;
	}
	return false;
}

/* An address as the API writes it, so that nothing in it can be read as another part of a URL. */
static bool is_ip(const char *s)
{
	return *s && strspn(s, "0123456789abcdefABCDEF.:") == strlen(s);
}

static enum kube_why why_not(struct span metadata, struct span status, bool wanted, char *ip,
			     size_t cap)
{
	char phase[32] = "";

	if (!wanted)
		return KUBE_OTHER;
	if (has(metadata, "deletionTimestamp"))
		return KUBE_GOING;
	if (!text_of(status, "phase", phase, sizeof(phase)) || strcmp(phase, "Running") != 0)
		return KUBE_PHASE;
	if (!is_ready(status))
		return KUBE_NOT_READY;
	return text_of(status, "podIP", ip, cap) && is_ip(ip) ? KUBE_TAKES : KUBE_NO_IP;
}

static int take_labels(struct route_labels *to, struct span labels)
{
	char value[80], name[330];
	struct json_member m;
	size_t at = 0;
	int err = PD_OK;

	while (!err && labels.p && json_object_next(labels, &at, &m)) {
		const char *p = m.key.p, *v = m.value.p + 1;
		size_t n, k;

		if (m.type != JSON_STRING || m.key.n > 317 || m.value.n > 65)
			continue;
		n = json_unescape(&p, m.key.p + m.key.n, name, sizeof(name));
		k = json_unescape(&v, m.value.p + m.value.n - 1, value, sizeof(value));
		if (n > 0)
			err = route_labels_set(to, (struct span){name, n}, (struct span){value, k});
		/* More labels than a worker has room for: the first ones count. */
		err = err == PD_ETOOBIG ? PD_OK : err;
	}
	return err;
}

static void take_bootstrap(struct kube_pod *p, struct span annotations)
{
	char text[16];
	const char *name =
		has(annotations, KUBE_BOOTSTRAP) ? KUBE_BOOTSTRAP : KUBE_BOOTSTRAP_SGLANG;
	unsigned long port;

	if (!has(annotations, name))
		return;
	p->bad_port = !text_of(annotations, name, text, sizeof(text)) ||
		      strspn(text, "0123456789") != strlen(text) || strlen(text) > 5;
	port = p->bad_port ? 0 : strtoul(text, NULL, 10);
	p->bad_port |= port == 0 || port > UINT16_MAX;
	p->w.bootstrap = p->bad_port ? 0 : (int)port;
}

/* The worker that a pod is. */
static int fill(struct kube_pod *p, const struct kube_wanted *w, struct span metadata,
		struct span labels, struct span spec, const char *ip)
{
	const char *name = w->plain_names ? strchr(p->key, '/') + 1 : p->key;
	bool v6 = strchr(ip, ':') != NULL;
	char node[KUBE_NAME_MAX + 4];
	int err;

	(void)snprintf(p->w.url, sizeof(p->w.url), "http://%s%s%s:%u", v6 ? "[" : "", ip,
		       v6 ? "]" : "", w->port[p->w.role]);
	if (!w->url_names && strlen(name) < sizeof(p->w.name))
		memcpy(p->w.name, name, strlen(name) + 1);
	err = take_labels(&p->w.labels, labels);
	if (!err && text_of(spec, "nodeName", node, sizeof(node)) &&
	    !route_label(&p->w.labels, SPAN(KUBE_LABEL_NODE)).p)
		err = route_labels_set(&p->w.labels, SPAN(KUBE_LABEL_NODE), span_of(node));
	if (p->w.role == DISCOVERY_PREFILL)
		take_bootstrap(p, member_of(metadata, "annotations", JSON_OBJECT));
	return err == PD_ETOOBIG ? PD_OK : err;
}

static int pod_read(struct kube_pod *p, struct span object, const struct kube_wanted *w,
		    struct pd_msg *msg)
{
	struct span metadata = member_of(object, "metadata", JSON_OBJECT),
		    status = member_of(object, "status", JSON_OBJECT),
		    labels = member_of(metadata, "labels", JSON_OBJECT);
	char name[KUBE_NAME_MAX + 4], space[68], ip[60];
	bool wanted;

	*p = (struct kube_pod){0};
	if (!text_of(metadata, "name", name, sizeof(name)) ||
	    !text_of(metadata, "namespace", space, sizeof(space)) || strchr(space, '/'))
		return pd_fail(msg, PD_EINVAL,
			       "found an object without metadata.name or metadata.namespace, "
			       "expected a Pod");
	(void)snprintf(p->key, sizeof(p->key), "%s/%s", space, name);
	if (!text_of(metadata, "uid", p->uid, sizeof(p->uid)))
		p->uid[0] = '\0';
	wanted = pick_role(w, labels, &p->w.role);
	p->why = why_not(metadata, status, wanted, ip, sizeof(ip));
	if (p->why != KUBE_TAKES)
		return PD_OK;
	if (fill(p, w, metadata, labels, member_of(object, "spec", JSON_OBJECT), ip)) {
		kube_pod_release(p);
		*p = (struct kube_pod){0};
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	return PD_OK;
}

/* -- lists and watches -- */

/* Of an object's metadata; an empty one is none. */
static bool version_of(struct span metadata, char out[KUBE_VERSION_MAX + 1])
{
	char text[KUBE_VERSION_MAX + 4];

	if (!text_of(metadata, "resourceVersion", text, sizeof(text)) ||
	    strlen(text) > KUBE_VERSION_MAX)
		return false;
	memcpy(out, text, strlen(text) + 1);
	return true;
}

/* A whole text as an object; release it. */
static int scan(struct json_object *o, struct span text, struct pd_msg *msg)
{
	struct pd_msg inner = {0};

	return json_object_scan(o, text.p, text.n, &inner)
		       ? pd_fail(msg, PD_EINVAL, "found no JSON object: %.300s", inner.text)
		       : PD_OK;
}

static int page_items(struct kube_page *page, struct span items, const struct kube_wanted *w,
		      struct pd_msg *msg)
{
	enum json_type type;
	struct kube_pod pod;
	struct span one;
	size_t at = 0;
	int err = PD_OK;

	while (!err && items.p && json_array_next(items, &at, &one, &type)) {
		err = pod_read(&pod, type == JSON_OBJECT ? one : (struct span){NULL, 0}, w, msg);
		if (err)
			break;
		err = page->each(page->ctx, &pod);
		if (err)
			(void)pd_fail(msg, err, "too many pods, or out of memory");
		kube_pod_release(&pod);
	}
	return err;
}

int kube_page_read(struct kube_page *page, struct span body, const struct kube_wanted *w,
		   struct pd_msg *msg)
{
	struct span metadata, items;
	struct json_object o;
	struct json_member m;
	size_t at = 0;
	int err = scan(&o, body, msg);

	if (err)
		return err;
	buf_clear(page->more);
	metadata = member_of(o.text, "metadata", JSON_OBJECT);
	items = member_of(o.text, "items", JSON_ARRAY);
	/* An empty list of Go may be null. */
	if (!version_of(metadata, page->version) || (!items.p && !has(o.text, "kind")) ||
	    (!items.p && has(o.text, "items"))) {
		err = pd_fail(msg, PD_EINVAL,
			      "found no items with a metadata.resourceVersion, expected a "
			      "PodList");
	} else {
		while (!err && json_object_next(metadata, &at, &m))
			if (m.type == JSON_STRING && json_member_is(&m, "continue"))
				err = json_string_decode(m.value, page->more);
		if (err)
			(void)pd_fail(msg, err, "metadata.continue: found more than fits");
	}
	err = err ? err : page_items(page, items, w, msg);
	json_object_release(&o);
	return err;
}

static int code_of(struct span object, const char *name)
{
	struct span number = member_of(object, name, JSON_NUMBER);
	int64_t v = 0;

	return number.p && json_int(number, &v) == PD_OK && v > 0 && v < 100000 ? (int)v : 0;
}

static int event_of(struct kube_event *e, const char *type, struct span object,
		    const struct kube_wanted *w, struct pd_msg *msg)
{
	int err;

	if (strcmp(type, "ERROR") == 0) {
		e->kind = KUBE_ERROR;
		e->status = code_of(object, "code");
		cut_text(object, "message", e->reason, sizeof(e->reason));
		return PD_OK;
	}
	if (!version_of(member_of(object, "metadata", JSON_OBJECT), e->version))
		return pd_fail(msg, PD_EINVAL, "found no metadata.resourceVersion, expected one");
	e->kind = KUBE_BOOKMARK;
	if (strcmp(type, "BOOKMARK") == 0)
		return PD_OK;
	err = pod_read(&e->pod, object, w, msg);
	e->kind = KUBE_PUT;
	if (err || strcmp(type, "ADDED") == 0 || strcmp(type, "MODIFIED") == 0)
		return err;
	e->kind = KUBE_DELETE;
	e->pod.why = KUBE_GONE;
	return strcmp(type, "DELETED") == 0
		       ? PD_OK
		       : pd_fail(msg, PD_EINVAL,
				 "\"type\": found '%.40s', expected ADDED, MODIFIED, DELETED, "
				 "BOOKMARK or ERROR",
				 type);
}

int kube_event_read(struct kube_event *e, struct span line, const struct kube_wanted *w,
		    struct pd_msg *msg)
{
	struct json_object o;
	char type[44];
	int err = scan(&o, line, msg);

	*e = (struct kube_event){0};
	if (err)
		return err;
	if (!text_of(o.text, "type", type, sizeof(type)))
		err = pd_fail(msg, PD_EINVAL, "found no \"type\", expected a watch event");
	err = err ? err : event_of(e, type, member_of(o.text, "object", JSON_OBJECT), w, msg);
	json_object_release(&o);
	if (err)
		kube_event_release(e);
	return err;
}

void kube_event_release(struct kube_event *e)
{
	kube_pod_release(&e->pod);
}

void kube_status_read(struct span body, char *text, size_t cap, int *code, unsigned *wait_s)
{
	struct json_object o;

	text[0] = '\0';
	*code = 0;
	*wait_s = 0;
	if (json_object_scan(&o, body.p, body.n, NULL))
		return;
	cut_text(o.text, "message", text, cap);
	*code = code_of(o.text, "code");
	*wait_s = (unsigned)code_of(member_of(o.text, "details", JSON_OBJECT), "retryAfterSeconds");
	json_object_release(&o);
}
