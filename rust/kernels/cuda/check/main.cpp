// Holds every kernel against its naive reference, on the host. Ends with 1 where a number is off.

#include "check.h"

#include <ctime>

int main(int num, char** arguments) {
    if (num > 1) directory = arguments[1];
    const auto run = [](const char* name, void (*check)()) {
        const unsigned cases = num_cases, wrong = num_wrong;
        const clock_t begin = clock();
        check();
        std::printf("%-10s %4u cases, %u numbers off, %.1f s\n", name, num_cases - cases, num_wrong - wrong, double(clock() - begin) / CLOCKS_PER_SEC);
    };
    run("rope", check_rope);
    run("norm", check_norm);
    run("gate", check_gate);
    run("product", check_product);
    run("route", check_route);
    run("draw", check_draw);
    run("attention", check_attention);
    return num_wrong > 0;
}
