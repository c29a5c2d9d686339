/* A datagram to a Unix socket: a path, or with '@' a name in the abstract namespace. */
#include "cmd/notify.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/clock.h"

void notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	size_t n = path ? strlen(path) : 0;
	int fd;

	if (n < 2 || n >= sizeof(to.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(to.sun_path, path, n);
	if (path[0] == '@')
		to.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	n += offsetof(struct sockaddr_un, sun_path) + (path[0] == '/');
	if (connect(fd, (const struct sockaddr *)&to, (socklen_t)n) == 0)
		(void)!write(fd, state, strlen(state));
	(void)close(fd);
}

void notify_reloading(void)
{
	char text[80];

	(void)snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%" PRId64,
		       clock_now() / NS_PER_US);
	notify(text);
}

void notify_stopping(int64_t longest_ns)
{
	char text[80];

	(void)snprintf(text, sizeof(text), "STOPPING=1\nEXTEND_TIMEOUT_USEC=%" PRId64,
		       longest_ns / NS_PER_US);
	notify(text);
}
