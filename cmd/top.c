/* pdctl top: a router, live in a terminal. Plain escape codes; what the terminal was is put back
 * however it ends. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "cmd/adminclient.h"
#include "cmd/cmd.h"
#include "cmd/top_frame.h"
#include "lib/base/cli.h"
#include "lib/base/clock.h"

#define FRAME_MAX (8u << 20)
#define ENTER	  "\033[?1049h\033[?25l" /* the other screen, no cursor */
#define LEAVE	  "\033[?25h\033[?1049l"
#define HOME	  "\033[H"
#define REST	  "\033[J" /* clears below */
#define LINE_REST "\033[K"

static struct {
	const char *ca_file;
	double interval;
	bool once, ascii;
} o;

static const struct opt options[] = {
	{OPT_REAL, "interval", &o.interval, "S", "seconds between looks (1)", NULL, 0.2, 3600,
	 NULL},
	{OPT_FLAG, "once", &o.once, NULL,
	 "print one picture, made of two looks, and end; so it is where standard output is no "
	 "terminal",
	 NULL, 0, 0, NULL},
	{OPT_FLAG, "ascii", &o.ascii, NULL, "no characters beyond ASCII (as the locale says)", NULL,
	 0, 0, NULL},
	{OPT_TEXT, "ca-file", &o.ca_file, "FILE",
	 "PEM with the authorities of an https:// router (the system's)", NULL, 0, 0, NULL},
	{.type = OPT_END},
};

static const struct opt_command command = {
	.name = "top",
	.usage = "pdctl top [URL] [options]",
	.summary = "watch a running router in a terminal",
	.about = "URL is the router's admin port (http://127.0.0.1:29000). Keys: q ends, s sorts "
		 "by the "
		 "next column (name,\n"
		 "in flight, requests/s, errors), p pauses. Times are means of the last half "
		 "minute; a "
		 "browser sees more at\n"
		 "URL/dashboard. Exit codes: 0 ended, 2 wrong usage, 3 no answer, or no page of a "
		 "router there.",
	.examples = "  $ pdctl top http://127.0.0.1:29000\n"
		    "  $ pdctl top --once | head -20\n",
	.opts = options,
};

static volatile sig_atomic_t ended, resized;

static void on_signal(int signal_number)
{
	if (signal_number == SIGWINCH)
		resized = 1;
	else
		ended = signal_number;
}

/* One look. PD_ECLOSED and PD_EPROTO with a message. */
static int look(struct admin_client *c, struct top *t, struct pd_msg *msg)
{
	struct admin_reply r;
	int err = admin_client_ask(c, "GET", "/dashboard/state", NULL, NULL, &r, msg);

	if (err)
		return err;
	if (r.status == 200 && r.json) {
		err = top_add(t, r.json);
		r.json = NULL;
	} else {
		err = PD_EPROTO;
	}
	if (err)
		(void)pd_fail(
			msg, PD_EPROTO,
			"answered %ld, and not with the state of a router: is it the admin port "
			"of one with a page?",
			r.status);
	admin_reply_release(&r);
	return err;
}

/* -- once -- */

static int once(struct admin_client *c, struct top *t, struct top_look *l, struct pd_msg *msg)
{
	struct buf out;
	int err = look(c, t, msg);

	if (err)
		return err;
	clock_sleep_until(clock_now() + (int64_t)(o.interval * 1e9));
	err = look(c, t, msg);
	if (err)
		return err;
	buf_init(&out, FRAME_MAX);
	err = top_frame(t, l, &out);
	if (!err)
		cli_print(out.data, out.len);
	else
		(void)pd_fail(msg, err, "%s", pd_err_text(err));
	buf_release(&out);
	return err;
}

/* -- live -- */

static void window(struct top_look *l)
{
	struct winsize w;

	l->width = 80;
	l->height = 24;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 && w.ws_row > 0) {
		l->width = w.ws_col;
		l->height = w.ws_row;
	}
}

/* The state's colour, in a line that has the word. */
static int put_line(const char *line, size_t n, bool colour, struct buf *out)
{
	static const struct {
		const char *word, *code;
	} words[] = {{" available ", "32"}, {" draining ", "33"}, {" starting ", "33"},
		     {" busy ", "33"},	    {" removing ", "33"}, {" ejected ", "31"},
		     {" unhealthy ", "31"}, {" open ", "31"},	  {" stalled ", "31"},
		     {" unresolved ", "31"}};
	const char *at = NULL;
	size_t i = 0;
	int err;

	for (; colour && !at && i < sizeof(words) / sizeof(words[0]); i++)
		at = memmem(line, n, words[i].word, strlen(words[i].word));
	if (!at)
		return buf_append(out, line, n);
	i--;
	err = buf_append(out, line, (size_t)(at - line));
	err = err ? err : buf_printf(out, "\033[%sm%s\033[0m", words[i].code, words[i].word);
	at += strlen(words[i].word);
	return err ? err : buf_append(out, at, n - (size_t)(at - line));
}

static int draw(const struct top *t, struct top_look *l)
{
	struct buf frame, out;
	unsigned line = 0;
	int err;

	buf_init(&frame, FRAME_MAX);
	buf_init(&out, 2 * FRAME_MAX);
	err = top_frame(t, l, &frame);
	err = err ? err : buf_puts(&out, HOME);
	for (const char *p = frame.data; !err && p && *p; line++) {
		size_t n = strcspn(p, "\n");
		/* No line feed after the last line: it would scroll. */
		bool last = line + 1 >= l->height;

		err = line == 4 ? buf_puts(&out, "\033[1m") : PD_OK;
		err = err ? err : put_line(p, n, l->colour && line > 4, &out);
		err = err ? err : line == 4 ? buf_puts(&out, "\033[0m") : PD_OK;
		err = err ? err : buf_puts(&out, last ? LINE_REST : LINE_REST "\n");
		p += n + (p[n] == '\n');
	}
	err = err ? err : buf_puts(&out, REST);
	if (!err)
		cli_print(out.data, out.len);
	(void)fflush(stdout);
	buf_release(&frame);
	buf_release(&out);
	return err;
}

/* What the user typed; false: end. */
static bool keys(struct top_look *l)
{
	char key[32];
	ssize_t n = read(STDIN_FILENO, key, sizeof(key));

	for (ssize_t i = 0; i < n; i++) {
		if (key[i] == 'q' || key[i] == 'Q' || key[i] == 3 || key[i] == 4)
			return false;
		if (key[i] == 's')
			l->order = (enum top_order)((l->order + 1) % TOP_ORDERS);
		if (key[i] == 'p' || key[i] == ' ')
			l->paused = !l->paused;
	}
	return n > 0 || (n < 0 && errno == EINTR);
}

static int live(struct admin_client *c, struct top *t, struct top_look *l, struct pd_msg *msg)
{
	int64_t next = clock_now() + (int64_t)(o.interval * 1e9);
	bool more = true;
	int err = PD_OK;

	window(l);
	while (!err && more && !ended) {
		struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};

		err = draw(t, l);
		if (poll(&in, 1, clock_poll_ms(next)) > 0)
			more = keys(l);
		if (resized) {
			resized = 0;
			window(l);
		}
		if (clock_now() < next)
			continue;
		if (!l->paused)
			l->trouble = look(c, t, msg) ? msg->text : NULL;
		/* Not from when it was due: looks that were missed (^Z, no answer) are not made up
		 * for. */
		next = clock_now() + (int64_t)(o.interval * 1e9);
	}
	return err;
}

static int in_terminal(struct admin_client *c, struct top *t, struct top_look *l,
		       struct pd_msg *msg)
{
	struct sigaction act = {.sa_handler = on_signal};
	struct termios before, raw;
	int err = look(c, t, msg);

	if (err)
		return err;
	if (tcgetattr(STDIN_FILENO, &before))
		return pd_fail(msg, PD_EINVAL,
			       "standard input is no terminal, expected one, or --once");
	raw = before;
	raw.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	(void)sigaction(SIGWINCH, &act, NULL);
	(void)sigaction(SIGINT, &act, NULL);
	(void)sigaction(SIGTERM, &act, NULL);
	(void)sigaction(SIGHUP, &act, NULL);
	(void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	cli_print(ENTER, sizeof(ENTER) - 1);
	err = live(c, t, l, msg);
	cli_print(LEAVE, sizeof(LEAVE) - 1);
	(void)fflush(stdout);
	(void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
	return err;
}

int cmd_top(int argc, char **argv)
{
	struct top_look l = {.url = "http://127.0.0.1:29000"};
	struct admin_client *c = NULL;
	struct opt_list rest = {0};
	struct pd_msg msg = {0};
	struct top t = {0};
	int code, err;

	o.interval = 1;
	code = cli_parse(&command, argc, argv, &rest);
	if (code >= 0) {
		opt_list_release(&rest);
		return code;
	}
	if (rest.n > 1) {
		(void)pd_fail(&msg, PD_EINVAL, "found '%.200s', expected one URL", rest.items[1]);
		opt_list_release(&rest);
		return cli_usage_error(&command, &msg);
	}
	l.url = rest.n ? rest.items[0] : l.url;
	l.ascii = o.ascii || !cli_unicode();
	l.colour = cli_colour(STDOUT_FILENO);
	err = admin_client_new(
		&c, &(struct admin_access){.url = l.url, .operand = true, .ca_file = o.ca_file},
		&msg);
	if (err)
		code = cli_usage_error(&command, &msg);
	else
		err = o.once || !isatty(STDOUT_FILENO) ? once(c, &t, &l, &msg)
						       : in_terminal(c, &t, &l, &msg);
	if (code < 0)
		code = !err		  ? ended == SIGINT ? EXIT_INTERRUPTED : EXIT_OK
		       : err == PD_EINVAL ? cli_usage_error(&command, &msg)
					  : cli_runtime_error(&command, &msg);
	top_release(&t);
	admin_client_free(c);
	opt_list_release(&rest);
	return code;
}
