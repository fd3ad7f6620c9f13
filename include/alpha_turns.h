/* The turn protocol of `alpha loop` (docs/turns.md) and its records, for trainers in C, C++ and CUDA.
 *
 * C99 and POSIX, no dependency, this file alone. Without a loop every function does nothing, so a trainer can keep the
 * calls. Include it before other headers, or define _POSIX_C_SOURCE yourself.
 *
 *     alpha_turns turns;
 *     alpha_turns_open(&turns);                              after set-up, before the first step
 *     for (unsigned long step = 1; step <= steps; step++) {
 *         alpha_turns_before_step(&turns, save, &model);     waits until it is this trainer's turn
 *         ...                                                the step; on a GPU: synchronise the device
 *         alpha_turns_row(metrics, step, loss, grad_norm, hash);
 *         alpha_turns_after_step(&turns, step == steps);
 *     }
 */
#ifndef ALPHA_TURNS_H
#define ALPHA_TURNS_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#ifdef MSG_NOSIGNAL
#define ALPHA_TURNS_SEND MSG_NOSIGNAL
#else
#define ALPHA_TURNS_SEND 0
#endif

/* A trainer's side of the protocol. */
typedef struct {
    int socket;         /* -1 without a loop */
    unsigned long left; /* steps of this turn that are still to be run */
    unsigned long done; /* steps since the run began */
} alpha_turns;

/* Writes the weights as they are after `step` steps, as safetensors, to the place that `workload.weights` of `loop.toml`
 * names. */
typedef void (*alpha_turns_save)(void *context, unsigned long step);

/* The loop is gone, or speaks another protocol: nobody measures any more. */
static inline void alpha_turns_end(const char *why) {
    fprintf(stderr, "alpha_turns: %s\n", why);
    exit(1);
}

static inline void alpha_turns_say(const alpha_turns *turns, const char *line) {
    size_t length = strlen(line);
    while (length > 0) {
        ssize_t sent = send(turns->socket, line, length, ALPHA_TURNS_SEND);
        if (sent <= 0) {
            alpha_turns_end("the loop is gone");
        }
        line += sent;
        length -= (size_t)sent;
    }
}

/* Reads a line without its end. The loop sends one line and waits for its answer, so nothing follows it. */
static inline void alpha_turns_hear(const alpha_turns *turns, char *line, size_t size) {
    size_t length = 0;
    while (length + 1 < size) {
        if (recv(turns->socket, line + length, 1, 0) != 1) {
            alpha_turns_end("the loop is gone");
        }
        if (line[length] == '\n') {
            line[length] = '\0';
            return;
        }
        length++;
    }
    alpha_turns_end("the loop sent a line without an end");
}

/* Connects to the loop that started this process, if one did. */
static inline void alpha_turns_open(alpha_turns *turns) {
    const char *path = getenv("ALPHA_TURNS");
    struct sockaddr_un address;
    turns->socket = -1;
    turns->left = 0;
    turns->done = 0;
    if (path == NULL || path[0] == '\0') {
        return;
    }
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address.sun_path) {
        alpha_turns_end("the path in ALPHA_TURNS is too long for a socket");
    }
    strcpy(address.sun_path, path);
    turns->socket = socket(AF_UNIX, SOCK_STREAM, 0);
    if (turns->socket < 0 || connect(turns->socket, (struct sockaddr *)&address, sizeof address) != 0) {
        alpha_turns_end("cannot connect to ALPHA_TURNS");
    }
    alpha_turns_say(turns, "hello 1\n");
}

/* Before each step: returns when it is this trainer's turn. `save` may be NULL where `loop.toml` names no weights. */
static inline void alpha_turns_before_step(alpha_turns *turns, alpha_turns_save save, void *context) {
    char line[64];
    while (turns->socket >= 0 && turns->left == 0) {
        alpha_turns_hear(turns, line, sizeof line);
        if (strncmp(line, "go ", 3) == 0) {
            turns->left = strtoul(line + 3, NULL, 10);
        } else if (strcmp(line, "save") == 0 && save != NULL) {
            save(context, turns->done);
            alpha_turns_say(turns, "saved\n");
        } else {
            alpha_turns_say(turns, "failed a line that this trainer does not know\n");
            alpha_turns_end("the loop sent a line that this trainer does not know");
        }
    }
}

/* After each step, when its row is written and the device is idle. */
static inline void alpha_turns_after_step(alpha_turns *turns, int is_last) {
    char line[64];
    turns->done++;
    if (turns->socket >= 0 && (--turns->left == 0 || is_last)) {
        snprintf(line, sizeof line, "done %lu\n", turns->done);
        alpha_turns_say(turns, line);
    }
}

static inline void alpha_turns_number(FILE *file, const char *key, double value) {
    /* JSON has no word for infinity. */
    if (value - value == 0.0) {
        fprintf(file, ",\"%s\":%.17g", key, value);
    } else {
        fprintf(file, ",\"%s\":null", key);
    }
}

/* Writes the row of a finished step, counted from 1: the loss before the update, the norm before clipping. */
static inline void alpha_turns_row(FILE *file, unsigned long step, double loss, double grad_norm,
                                   unsigned long long data_hash) {
    fprintf(file, "{\"step\":%lu", step);
    alpha_turns_number(file, "loss", loss);
    alpha_turns_number(file, "gradNorm", grad_norm);
    fprintf(file, ",\"data_hash\":\"%016llx\"}\n", data_hash);
    fflush(file);
}

/* Adds tokens to the hash of all that were consumed before (FNV-1a, 64 bits; begins with 0). */
static inline unsigned long long alpha_turns_hash(unsigned long long hash, const void *tokens, size_t bytes) {
    const unsigned char *byte = (const unsigned char *)tokens;
    hash ^= 0xcbf29ce484222325ULL;
    while (bytes-- > 0) {
        hash = (hash ^ *byte++) * 0x100000001b3ULL;
    }
    return hash;
}

#endif
