/* The page carries scalars of the documents, and curves of a bounded number of points, so that it
 * stays below a megabyte whatever the run. */
#include "cmd/bench_html.h"

#include "cmd/cmd.h"
#include "lib/base/file.h"
#include "lib/json/scan.h"
#include "lib/load/timeline.h"
#include "lib/page/html_report.h"

#define o bench_options

static int put_member(const struct json_member *m, bool first, struct buf *out)
{
	int err = first ? PD_OK : buf_puts(out, ",");

	err = err ? err : buf_printf(out, "\"%.*s\":", (int)m->key.n, m->key.p);
	return err ? err : buf_append(out, m->value.p, m->value.n);
}

/* Without the histograms. */
static int put_own(struct span object, struct buf *out)
{
	struct json_member m;
	size_t at = 0;
	bool first = true;
	int err = buf_putc(out, '{');

	while (!err && json_object_next(object, &at, &m)) {
		if (json_member_is(&m, "histograms"))
			continue;
		err = put_member(&m, first, out);
		first = false;
	}
	return err ? err : buf_putc(out, '}');
}

static int put_document(struct span doc, struct buf *out)
{
	struct json_member m;
	size_t at = 0;
	bool first = true;
	int err = buf_putc(out, '{');

	while (!err && json_object_next(doc, &at, &m)) {
		if (m.type == JSON_ARRAY)
			continue;
		if (json_member_is(&m, "pdctl")) {
			err = buf_puts(out, first ? "\"pdctl\":" : ",\"pdctl\":");
			err = err ? err : put_own(m.value, out);
		} else {
			err = put_member(&m, first, out);
		}
		first = false;
	}
	return err;
}

int bench_html_add(struct bench_output *out, const struct bench_arm *a)
{
	int err;

	if (!o.html)
		return PD_OK;
	err = out->html.len > 0 ? buf_puts(&out->html, ",\n") : PD_OK;
	err = err ? err : put_document(buf_span(&a->doc), &out->html);
	err = err ? err : buf_puts(&out->html, ",\"distributions\":");
	err = err ? err : timeline_distributions(&a->run, &out->html);
	err = err ? err : buf_putc(&out->html, '}');
	buf_clear(&out->timeline);
	return err ? err : timeline_json(&a->run, &out->timeline);
}

int bench_html_write(struct bench_output *out, struct pd_msg *msg)
{
	struct pd_msg why = {""};
	struct buf json, page;
	int err;

	if (!o.html)
		return PD_OK;
	buf_init(&json, 4 * HTML_REPORT_MAX);
	buf_init(&page, 4 * HTML_REPORT_MAX);
	err = buf_puts(&json, "{\"runs\":[");
	err = err ? err : buf_append(&json, out->html.data, out->html.len);
	err = err ? err : buf_puts(&json, "],\n\"timeline\":");
	err = err ? err : buf_append(&json, out->timeline.data, out->timeline.len);
	err = err ? err : buf_putc(&json, '}');
	err = err ? err : html_report(HTML_BENCH, PDCTL_VERSION, buf_span(&json), &page, &why);
	if (err)
		err = pd_fail(msg, PD_EIO, "--html: cannot write '%.200s': %.250s", o.html,
			      why.text[0] ? why.text : pd_err_text(err));
	else
		err = file_write(o.html, page.data, page.len, msg);
	buf_release(&json);
	buf_release(&page);
	return err;
}
