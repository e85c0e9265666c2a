/* A made libnvidia-ml.so.1: what it answers stands in the file $MADE_NVML, which is read again at each call.
 *
 * One word or "key value" a line:
 *   init CODE | count_error CODE | count N | hang SYMBOL | driver TEXT
 *   gpu I lost CODE | total MB | used MB | util % | temp C | power mW | throttle BITS | ecc N | mig N | silent
 *   proc I PID MB SM%        (a process that computes; of a MIG instance: I is 100 * card + instance)
 *   xid I NUMBER SERIAL      (told once for each SERIAL)
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, TIMED_OUT = 10, LINES = 128 };
typedef struct { int index; } device; /* 0..: cards; 100 * (card + 1) + n: MIG instances */
static device devices[4096];
static char lines[LINES][160];
static int line_count;

static void load(void) {
    line_count = 0;
    const char *path = getenv("MADE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return;
    while (line_count < LINES && fgets(lines[line_count], sizeof lines[0], file)) line_count++;
    fclose(file);
}

static const char *text_of(const char *key) {
    size_t length = strlen(key);
    for (int i = 0; i < line_count; i++)
        if (!strncmp(lines[i], key, length) && lines[i][length] == ' ') return lines[i] + length + 1;
    return NULL;
}

static long number_of(const char *key, long otherwise) {
    const char *text = text_of(key);
    return text ? atol(text) : otherwise;
}

static long of_gpu(device *d, const char *what, long otherwise) {
    char key[64];
    snprintf(key, sizeof key, "gpu %d %s", d->index, what);
    return number_of(key, otherwise);
}

static int begin(const char *symbol) {
    load();
    const char *hangs = text_of("hang");
    if (hangs && !strncmp(hangs, symbol, strlen(symbol))) for (;;) pause();
    return OK;
}

static int card_of(device *d) { return d->index >= 100 ? d->index / 100 - 1 : d->index; }
static int lost(device *d) { return (int)of_gpu(&devices[card_of(d)], "lost", OK); }

#define BEGIN() begin(__func__)
#define ASK(d) do { BEGIN(); int gone = lost(d); if (gone) return gone; if (of_gpu(d, "silent", 0)) return NOT_SUPPORTED; } while (0)
#define FIGURE(d, what) do { long found = of_gpu(d, what, -1); if (found < 0) return NOT_SUPPORTED; *out = found; return OK; } while (0)

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    BEGIN();
    for (int i = 0; i < 4096; i++) devices[i].index = i;
    return (int)number_of("init", OK);
}
const char *nvmlErrorString(int code) {
    return code == 9 ? "Driver Not Loaded" : code == 15 ? "GPU is lost" : code == 18 ? "Driver/library version mismatch" : "made error";
}
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    BEGIN();
    snprintf(text, length, "999.1");
    return OK;
}
int nvmlSystemGetProcessName(unsigned pid, char *text, unsigned length) {
    BEGIN();
    if (pid < 4000000) return NOT_FOUND;
    snprintf(text, length, "/opt/far/away-%u", pid);
    return OK;
}
int nvmlDeviceGetCount_v2(unsigned *out) {
    BEGIN();
    *out = (unsigned)number_of("count", 0);
    return (int)number_of("count_error", OK);
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **out) {
    BEGIN();
    *out = &devices[index];
    return lost(*out);
}
int nvmlDeviceGetName(device *d, char *text, unsigned length) {
    ASK(d);
    snprintf(text, length, d->index >= 100 ? "Made GPU MIG 1g.10gb" : "Made GPU");
    return OK;
}
int nvmlDeviceGetUUID(device *d, char *text, unsigned length) {
    ASK(d);
    snprintf(text, length, d->index >= 100 ? "MIG-made-%d" : "GPU-made-%d", d->index);
    return OK;
}
typedef struct { char legacy[16]; unsigned domain, bus, device, id, sub; char bus_id[32]; } pci;
int nvmlDeviceGetPciInfo_v3(device *d, pci *out) {
    ASK(d);
    memset(out, 0, sizeof *out);
    snprintf(out->bus_id, sizeof out->bus_id, "00000000:%02X:00.0", 10 + d->index);
    return OK;
}
typedef struct { unsigned long long total, free, used; } memory;
int nvmlDeviceGetMemoryInfo(device *d, memory *out) {
    ASK(d);
    long total = of_gpu(d, "total", -1), used = of_gpu(d, "used", 0);
    if (total < 0) return NOT_SUPPORTED;
    *out = (memory){(uint64_t)total << 20, (uint64_t)(total - used) << 20, (uint64_t)used << 20};
    return OK;
}
typedef struct { unsigned gpu, memory; } rates;
int nvmlDeviceGetUtilizationRates(device *d, rates *out) {
    ASK(d);
    long found = of_gpu(d, "util", -1);
    if (found < 0) return NOT_SUPPORTED;
    *out = (rates){(unsigned)found, 0};
    return OK;
}
int nvmlDeviceGetTemperature(device *d, int sensor, unsigned *out) { (void)sensor; ASK(d); FIGURE(d, "temp"); }
int nvmlDeviceGetPowerUsage(device *d, unsigned *out) { ASK(d); FIGURE(d, "power"); }
int nvmlDeviceGetEnforcedPowerLimit(device *d, unsigned *out) { ASK(d); FIGURE(d, "limit"); }
int nvmlDeviceGetClockInfo(device *d, int kind, unsigned *out) { (void)kind; ASK(d); FIGURE(d, "clock"); }
int nvmlDeviceGetCurrentClocksThrottleReasons(device *d, unsigned long long *out) { ASK(d); FIGURE(d, "throttle"); }
int nvmlDeviceGetTotalEccErrors(device *d, int kind, int counter, unsigned long long *out) {
    (void)counter;
    ASK(d);
    if (kind == 0) FIGURE(d, "ecc_corrected");
    FIGURE(d, "ecc");
}
#ifndef OLD_DRIVER
int nvmlDeviceGetMigMode(device *d, unsigned *current, unsigned *pending) {
    ASK(d);
    long instances = of_gpu(d, "mig", -1);
    if (instances < 0) return NOT_SUPPORTED;
    *current = *pending = instances > 0;
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(device *d, unsigned *out) { ASK(d); *out = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(device *d, unsigned n, device **out) {
    ASK(d);
    if (n >= of_gpu(d, "mig", 0)) return NOT_FOUND;
    *out = &devices[100 * (d->index + 1) + n];
    return OK;
}
#endif
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process;
typedef struct { unsigned pid; unsigned long long at_us; unsigned sm, memory, enc, dec; } sample;

/* The nth process of a device: its pid, memory in MB and use of the processors. */
static int nth_process(device *d, unsigned n, long found[3]) {
    for (int i = 0; i < line_count; i++) {
        int index;
        if (sscanf(lines[i], "proc %d %ld %ld %ld", &index, found, found + 1, found + 2) == 4 && index == d->index && n-- == 0) return 1;
    }
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(device *d, unsigned *count, process *out) {
    ASK(d);
    long found[3];
    unsigned room = *count, n = 0;
    for (; nth_process(d, n, found); n++)
        if (n < room && out) out[n] = (process){(unsigned)found[0], found[1] < 0 ? ~0ULL : (uint64_t)found[1] << 20, ~0U, ~0U};
    *count = n;
    return n > room ? TOO_SMALL : OK;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(device *d, unsigned *count, process *out) {
    return nvmlDeviceGetComputeRunningProcesses_v3(d, count, out); /* all of them draw as well */
}
int nvmlDeviceGetProcessUtilization(device *d, sample *out, unsigned *count, unsigned long long since_us) {
    ASK(d);
    long found[3];
    unsigned room = *count, n = 0;
    for (; nth_process(d, n, found); n++)
        if (n < room && out) out[n] = (sample){(unsigned)found[0], since_us + 1, (unsigned)found[2], 0, 0, 0};
    *count = n;
    return n == 0 ? NOT_FOUND : n > room || !out ? TOO_SMALL : OK;
}
int nvmlEventSetCreate(void **out) { BEGIN(); *out = devices; return OK; }
int nvmlDeviceRegisterEvents(device *d, unsigned long long kinds, void *set) { (void)kinds; (void)set; ASK(d); return OK; }
typedef struct { device *d; unsigned long long kind, data; unsigned gpu_instance, compute_instance; } event;
int nvmlEventSetWait_v2(void *set, event *out, unsigned timeout_ms) {
    static long told;
    (void)set;
    (void)timeout_ms;
    BEGIN();
    for (int i = 0; i < line_count; i++) {
        int index;
        long number, serial;
        if (sscanf(lines[i], "xid %d %ld %ld", &index, &number, &serial) == 3 && serial > told) {
            told = serial;
            *out = (event){&devices[index], 8, (unsigned long long)number, ~0U, ~0U};
            return OK;
        }
    }
    return TIMED_OUT;
}
