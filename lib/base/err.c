#include "lib/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *pd_err_text(int err)
{
	static const char *const texts[] = {
		"ok",	       "incomplete",	"invalid input",  "out of memory", "timed out",
		"peer closed", "too large",	"protocol error", "system error",  "not found",
		"exists",      "limit reached", "canceled",
	};
	size_t i = err <= 0 ? (size_t)-err : sizeof(texts);

	return i < sizeof(texts) / sizeof(texts[0]) ? texts[i] : "unknown error";
}

#undef pd_fail /* the macro of the header; here is the function */
int pd_fail(struct pd_msg *msg, int err, const char *fmt, ...)
{
	va_list ap;

	if (msg) {
		va_start(ap, fmt);
		(void)vsnprintf(msg->text, sizeof(msg->text), fmt, ap);
		va_end(ap);
	}
	return err;
}

const char *pd_errno_text(int errnum, char *buf, size_t cap)
{
	return strerror_r(errnum, buf, cap);
}
