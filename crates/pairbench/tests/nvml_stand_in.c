/* Stands in for NVIDIA's management library: two cards, of which the second is hot. Only what is asked for. */
#include <stdio.h>
#include <string.h>

typedef struct {
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance;
} process_info;

static char cards[2];

static int index_of(void *card) { return (char *)card == &cards[1]; }

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { (void)code; return "stand-in"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "570.00"); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **card) { *card = &cards[index]; return index > 1; }
int nvmlDeviceGetName(void *card, char *text, unsigned size) { snprintf(text, size, "Stand-in %d", index_of(card)); return 0; }
int nvmlDeviceGetClockInfo(void *card, int type, unsigned *mhz) { (void)card; *mhz = type == 1 ? 1980 : 2619; return 0; }
int nvmlDeviceGetTemperature(void *card, int sensor, unsigned *celsius) { (void)sensor; *celsius = index_of(card) ? 91 : 41; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(void *card, unsigned *milliwatts) { (void)card; *milliwatts = 700000; return 0; }
/* 0x4: power cap; 0x8: hardware slowdown; 0x40: thermal slowdown by hardware. */
int nvmlDeviceGetCurrentClocksThrottleReasons(void *card, unsigned long long *reasons) { *reasons = index_of(card) ? 0x48 : 0x4; return 0; }
int nvmlDeviceGetTotalEccErrors(void *card, int kind, int counter, unsigned long long *errors) { (void)kind; (void)counter; *errors = index_of(card) ? 3 : 0; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *card, unsigned *count, process_info *found) {
    unsigned room = *count;
    *count = index_of(card) ? 1 : 0;
    if (found && room >= *count && *count) {
        memset(found, 0, sizeof *found);
        found->pid = 4242;
    }
    return room < *count ? 7 : 0;
}
