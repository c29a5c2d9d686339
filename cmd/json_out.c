#include "cmd/json_out.h"

#include <string.h>

#include "lib/base/cli.h"
#include "lib/base/file.h"

int json_out(const char *path, const cJSON *doc, struct pd_msg *msg)
{
	char *text = doc ? cJSON_Print(doc) : NULL;
	size_t n = text ? strlen(text) : 0;
	int err = PD_OK;

	if (!text)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	text[n] = '\n'; /* in place of the terminator */
	if (strcmp(path, "-") == 0)
		cli_print(text, n + 1);
	else
		err = file_write(path, text, n + 1, msg);
	cJSON_free(text);
	return err;
}
