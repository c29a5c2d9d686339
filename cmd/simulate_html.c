#include "cmd/simulate_html.h"

#include "cmd/cmd.h"
#include "lib/base/file.h"
#include "lib/page/html_report.h"

const char *simulate_html;

int simulate_html_write(const cJSON *docs, struct pd_msg *msg)
{
	struct pd_msg why = {""};
	struct buf json, page;
	char *text;
	int err;

	if (!simulate_html)
		return PD_OK;
	buf_init(&json, 16 * HTML_REPORT_MAX);
	buf_init(&page, 32 * HTML_REPORT_MAX);
	text = cJSON_PrintUnformatted(docs);
	err = text ? buf_printf(&json, "{\"pdctl\":{\"arms\":%s}}", text) : PD_ENOMEM;
	cJSON_free(text);
	err = err ? err : html_report(HTML_SIMULATE, PDCTL_VERSION, buf_span(&json), &page, &why);
	if (err)
		err = pd_fail(msg, err, "--html: cannot write '%.200s': %.250s", simulate_html,
			      why.text[0] ? why.text : pd_err_text(err));
	else
		err = file_write(simulate_html, page.data, page.len, msg);
	buf_release(&json);
	buf_release(&page);
	return err;
}
