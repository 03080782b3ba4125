import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;

/**
 * A web application with a memory leak, to see what becomes of a heap dump. The JDK's own HTTP server, no framework.
 *
 * <pre>
 *   GET /health      200 "ok"
 *   GET /stats       JSON: what is leaked, what the heap holds and may hold, bytes
 *   GET /leak?mb=N   keep N MiB more, for ever. More than the heap holds: OutOfMemoryError, a heap dump, and with
 *                    -XX:+ExitOnOutOfMemoryError the end of the JVM, so that the caller gets no answer
 * </pre>
 *
 * The port is the variable PORT, 8080 if unset.
 */
public final class MemoryLeakApp {
    private static final int MIB = 1 << 20;
    private static final int MOST_MB = 1 << 20; // a TiB
    private static final int ORDERS_PER_MIB = 256;

    /** What leaks: 4 KiB as an application would keep them, so that the dump is worth a look. */
    private record Order(long id, String customer, Map<String, Long> lines, byte[] document) {
        static Order number(long id) {
            return new Order(id, "customer " + id, Map.of("screws", id, "nuts", id + 1), new byte[3600]);
        }
    }

    private static final List<Order> ORDERS = new ArrayList<>();
    private static final AtomicLong LEAKED_MIB = new AtomicLong();

    private MemoryLeakApp() {}

    public static void main(String[] arguments) throws IOException {
        String port = System.getenv().getOrDefault("PORT", "8080");
        HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(port)), 0);
        server.createContext("/health", exchange -> answer(exchange, 200, "text/plain", "ok\n"));
        server.createContext("/stats", exchange -> answer(exchange, 200, "application/json", stats()));
        server.createContext("/leak", MemoryLeakApp::leak);
        server.setExecutor(Executors.newFixedThreadPool(4));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(1)));
        server.start();
        System.out.println("memory-leak-app listens on port " + port);
    }

    private static void leak(HttpExchange exchange) throws IOException {
        int mb = megabytes(exchange.getRequestURI().getQuery());
        if (mb < 1) {
            answer(exchange, 400, "text/plain", "ask for /leak?mb=N with N from 1 to " + MOST_MB + "\n");
            return;
        }
        System.out.println("leaking " + mb + " MiB");
        for (int done = 0; done < mb; done++) {
            synchronized (ORDERS) {
                for (int i = 0; i < ORDERS_PER_MIB; i++) {
                    ORDERS.add(Order.number(ORDERS.size()));
                }
            }
            LEAKED_MIB.incrementAndGet();
        }
        answer(exchange, 200, "application/json", stats());
    }

    /** Gives N of the query "mb=N", 0 if that is not what it says. */
    private static int megabytes(String query) {
        if (query == null || !query.matches("mb=[0-9]{1,7}")) {
            return 0;
        }
        int mb = Integer.parseInt(query.substring(3));
        return mb <= MOST_MB ? mb : 0;
    }

    private static String stats() {
        Runtime runtime = Runtime.getRuntime();
        return String.format(
            "{\"leaked_bytes\": %d, \"heap_used_bytes\": %d, \"heap_max_bytes\": %d}%n",
            LEAKED_MIB.get() * MIB, runtime.totalMemory() - runtime.freeMemory(), runtime.maxMemory());
    }

    private static void answer(HttpExchange exchange, int status, String type, String text) throws IOException {
        byte[] body = text.getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", type);
        exchange.sendResponseHeaders(status, body.length);
        try (exchange) {
            exchange.getResponseBody().write(body);
        }
    }
}
