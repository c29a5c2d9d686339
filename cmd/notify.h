/* The service manager's notification socket (sd_notify(3)), without a library. */
#ifndef PD_CMD_NOTIFY_H
#define PD_CMD_NOTIFY_H

#include <stdint.h>

/* Tells the service manager, when there is one (NOTIFY_SOCKET): "READY=1", "STOPPING=1", ... One
 * datagram; it never waits, and a missing reader is no failure. */
void notify(const char *state);
/* A reload begins; notify("READY=1") ends it. */
void notify_reloading(void);
/* The end begins and may take so long. */
void notify_stopping(int64_t longest_ns);

#endif
