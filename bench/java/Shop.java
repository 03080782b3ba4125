import com.sun.management.HotSpotDiagnosticMXBean;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.UUID;

/**
 * A heap like that of an application server: sessions, orders, caches of text, none of it all zeros or all random.
 *
 * `java Shop MIB PATH` keeps about MIB MiB of it and writes a heap dump to PATH.
 */
public final class Shop {
    static final String[] WORDS = (
        "order customer invoice payment shipping address street city postal country account session token cache"
        + " request response header cookie product price currency amount discount quantity warehouse stock item"
        + " category supplier delivery tracking status pending approved rejected cancelled returned refunded review"
        + " rating comment message subject body sender recipient attachment document report summary detail total"
    ).split(" ");
    static final List<Object> KEPT = new ArrayList<Object>();
    static final Random RANDOM = new Random(20260101);

    static class Line {
        final long product = RANDOM.nextInt(200000);
        final int quantity = 1 + RANDOM.nextInt(9);
        final double price = RANDOM.nextInt(100000) / 100.0;
        final String note = RANDOM.nextInt(4) == 0 ? words(6) : null;
    }

    static class Order {
        final String id = new UUID(RANDOM.nextLong(), RANDOM.nextLong()).toString();
        final long placed = 1700000000000L + RANDOM.nextInt();
        final Line[] lines = new Line[1 + RANDOM.nextInt(6)];
        final Map<String, Object> attributes = new HashMap<String, Object>();
        Customer customer;

        Order(Customer customer) {
            this.customer = customer;
            for (int i = 0; i < lines.length; i++) {
                lines[i] = new Line();
            }
            for (int i = RANDOM.nextInt(5); i > 0; i--) {
                attributes.put(word(), RANDOM.nextBoolean() ? (Object) words(3) : Integer.valueOf(RANDOM.nextInt()));
            }
        }
    }

    static class Customer {
        final String name = words(2);
        final String mail = word() + "." + RANDOM.nextInt(100000) + "@example.com";
        final TreeMap<Long, Order> orders = new TreeMap<Long, Order>();
        final byte[] session = new byte[64 + RANDOM.nextInt(64)];
        final byte[] page = ("{\"text\": \"" + words(40) + "\", \"id\": " + RANDOM.nextLong() + "}").getBytes();

        Customer() {
            RANDOM.nextBytes(session);
            for (int i = RANDOM.nextInt(6); i > 0; i--) {
                Order order = new Order(this);
                orders.put(Long.valueOf(order.placed), order);
            }
        }
    }

    static String word() {
        return WORDS[RANDOM.nextInt(WORDS.length)];
    }

    static String words(int count) {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < count; i++) {
            text.append(i == 0 ? "" : " ").append(word());
        }
        return text.toString();
    }

    public static void main(String[] args) throws Exception {
        Runtime runtime = Runtime.getRuntime();
        long wanted = Long.parseLong(args[0]) << 20;
        do {
            for (int i = 0; i < 2000; i++) {
                KEPT.add(new Customer());
            }
            if (KEPT.size() % 20000 == 0) {
                System.gc();
            }
        } while (runtime.totalMemory() - runtime.freeMemory() < wanted);
        ManagementFactory.newPlatformMXBeanProxy(
            ManagementFactory.getPlatformMBeanServer(),
            "com.sun.management:type=HotSpotDiagnostic",
            HotSpotDiagnosticMXBean.class
        ).dumpHeap(args[1], true);
    }
}
