/* What comes from outside is the document alone; it stands in a script element of JSON, where '<',
 * '>' and '&' are written as \u003c and so on, which JSON allows within its strings only: there
 * they are nowhere else. */
#include "lib/page/html_report.h"

#include "lib/page/assets.h"

static const char *const kinds[] = {
	[HTML_BENCH] = "bench", [HTML_SIMULATE] = "simulate", [HTML_COMPARE] = "compare"};

static int put_asset(enum page_asset a, struct buf *out)
{
	struct span s = page_asset(a);

	return buf_append(out, s.p, s.n);
}

static int put_script(enum page_asset a, struct buf *out)
{
	int err = buf_puts(out, "<script>");

	if (!err && a == ASSET_D3)
		err = put_asset(ASSET_D3_NOTICE, out);
	err = err ? err : put_asset(a, out);
	return err ? err : buf_puts(out, "</script>\n");
}

/* JSON text that cannot end the element it stands in. */
static int put_json(struct span json, struct buf *out)
{
	size_t from = 0;
	int err = PD_OK;

	for (size_t i = 0; !err && i < json.n; i++) {
		char c = json.p[i];

		if (c != '<' && c != '>' && c != '&')
			continue;
		err = buf_append(out, json.p + from, i - from);
		err = err ? err : buf_printf(out, "\\u%04x", (unsigned)c);
		from = i + 1;
	}
	return err ? err : buf_append(out, json.p + from, json.n - from);
}

static int put_head(const char *kind, const char *version, struct buf *out)
{
	int err = buf_printf(
		out,
		"<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
		"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
		"script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; base-uri "
		"'none'; form-action 'none'\">\n"
		"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
		"<meta name=\"generator\" content=\"pdctl %s\">\n"
		"<title>pdctl %s</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>\n",
		version, kind);

	err = err ? err : put_asset(ASSET_STYLE, out);
	return err ? err
		   : buf_printf(out,
				"</style>\n</head>\n<body>\n<header><h1>pdctl %s</h1>"
				"<span class=\"soft grow\" id=\"what\"></span>"
				"<button type=\"button\" id=\"theme\">Theme</button></header>\n"
				"<main id=\"report\"><noscript><p>This report draws its charts "
				"with JavaScript; its data is JSON at the end of this file.</p>"
				"</noscript></main>\n",
				kind);
}

int html_report(enum html_report_kind kind, const char *version, struct span json, struct buf *out,
		struct pd_msg *msg)
{
	size_t before = out->len;
	int err = put_head(kinds[kind], version, out);

	err = err ? err
		  : buf_printf(out,
			       "<script type=\"application/json\" id=\"data\" data-kind=\"%s\">\n",
			       kinds[kind]);
	err = err ? err : put_json(json, out);
	err = err ? err : buf_puts(out, "\n</script>\n");
	err = err ? err : put_script(ASSET_D3, out);
	err = err ? err : put_script(ASSET_CHARTS, out);
	err = err ? err : put_script(ASSET_REPORT, out);
	err = err ? err : buf_puts(out, "</body>\n</html>\n");
	if (err == PD_ETOOBIG || (!err && out->len - before > HTML_REPORT_MAX))
		return pd_fail(msg, PD_ETOOBIG,
			       "the report would have more than 1 MB: its data alone has %zu bytes",
			       json.n);
	return err ? pd_fail(msg, err, "%s", pd_err_text(err)) : PD_OK;
}
