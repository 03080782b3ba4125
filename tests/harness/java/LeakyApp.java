import com.sun.management.HotSpotDiagnosticMXBean;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * An application with a leak, driven by one command a line on standard input; each is answered by one line.
 *
 * <pre>
 *   fill MIB              keep about MIB MiB more of varied objects      filled MIB
 *   classes N             load N more classes                            classes N
 *   oom [THREAD]          leak in a thread of that name until the heap   oom N, the number of the error
 *                         is full; what it leaked is freed again
 *   dump PATH [all]       heap dump of live (or all) objects, by MXBean  dumped PATH | failed WHY
 *   option NAME VALUE     set a manageable VM option                     option NAME VALUE
 *   gc                    System.gc()                                    gc
 *   direct MIB            keep MIB MiB more of direct buffers            direct MIB
 *   native MIB            keep MIB MiB more of malloc'ed memory          native MIB
 *   exit                  end with exit code 0 (so does end of input)
 * </pre>
 *
 * `java LeakyApp die` leaks at once, and ends by the uncaught OutOfMemoryError of its main thread.
 */
public final class LeakyApp {
    static final List<Object> KEPT = new ArrayList<Object>();
    static int errors;

    /** One field of each type that a heap dump knows. */
    static class Order {
        static long created;
        boolean open = true;
        byte state = 1;
        short year = 2026;
        char initial = '\u00e9';
        int number;
        float weight = 1.5f;
        long id = created++;
        double total = 19.99;
        String customer;
        Order previous;
        Object[] lines;

        Order(Order previous) {
            this.previous = previous;
            this.number = (int) created;
            this.customer = "customer \u2603 " + created;
        }
    }

    /** Copied under other names to have many classes; the name keeps its length. */
    public static class Leaf000000 {
        static int loaded;
        int value;
        Object next;

        public Leaf000000() {}
    }

    /** About 4 KiB: objects, strings, and arrays of every element type. */
    static Object page(Order previous) {
        Order order = new Order(previous);
        Map<String, Object> index = new HashMap<String, Object>();
        for (int i = 0; i < 8; i++) {
            index.put("key-" + order.id + "-" + i, Integer.valueOf(i));
        }
        order.lines = new Object[] {
            index, new boolean[17], new byte[1024], new char[100], new short[50], new int[100],
            new float[25], new long[50], new double[5][5], new String[] {"a", order.customer}, null,
        };
        return order;
    }

    static void fill(long bytes) {
        List<Object> pages = new ArrayList<Object>();
        KEPT.add(pages);
        Order previous = null;
        for (long done = 0; done < bytes; done += 4096) {
            // Short chains: an endless linked list would make a mark phase recurse deeply.
            Object page = page(previous);
            previous = done % (64 * 4096) == 0 ? null : (Order) page;
            pages.add(page);
        }
    }

    static void leakUntilFull() {
        List<Object> leaked = new ArrayList<Object>();
        Order previous = null;
        while (true) {
            Object page = page(previous);
            previous = leaked.size() % 64 == 0 ? null : (Order) page;
            leaked.add(page);
        }
    }

    static void runOutOfMemory(String threadName) throws InterruptedException {
        Thread thread = new Thread(new Runnable() {
            public void run() {
                try {
                    leakUntilFull();
                } catch (OutOfMemoryError expected) {
                    errors++;
                }
            }
        }, threadName);
        thread.start();
        thread.join();
    }

    static void loadClasses(int wanted) throws Exception {
        InputStream in = LeakyApp.class.getResourceAsStream("LeakyApp$Leaf000000.class");
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        for (int b = in.read(); b >= 0; b = in.read()) {
            out.write(b);
        }
        // ISO-8859-1 keeps every byte as one character.
        final String template = out.toString("ISO-8859-1");
        class Loader extends ClassLoader {
            Class<?> define(String name) throws Exception {
                byte[] code = template.replace("Leaf000000", name).getBytes(StandardCharsets.ISO_8859_1);
                return defineClass("LeakyApp$" + name, code, 0, code.length);
            }
        }
        Loader loader = new Loader();
        for (int i = 1; i <= wanted; i++) {
            KEPT.add(loader.define(String.format("Leaf%06d", i)).getDeclaredConstructor().newInstance());
        }
    }

    static HotSpotDiagnosticMXBean diagnostics() throws Exception {
        return ManagementFactory.newPlatformMXBeanProxy(
            ManagementFactory.getPlatformMBeanServer(),
            "com.sun.management:type=HotSpotDiagnostic",
            HotSpotDiagnosticMXBean.class);
    }

    /** As a library in C leaks: memory that no collector and no limit of the JVM knows. */
    static void leakNative(int mib) throws Exception {
        Class<?> unsafe = Class.forName("sun.misc.Unsafe");
        java.lang.reflect.Field field = unsafe.getDeclaredField("theUnsafe");
        field.setAccessible(true);
        Object instance = field.get(null);
        for (int i = 0; i < mib; i++) {
            Object address = unsafe.getMethod("allocateMemory", long.class).invoke(instance, 1L << 20);
            unsafe.getMethod("setMemory", long.class, long.class, byte.class)
                .invoke(instance, address, 1L << 20, Byte.valueOf((byte) 1));
        }
    }

    static String answer(String[] words) throws Exception {
        if (words[0].equals("fill")) {
            fill(Long.parseLong(words[1]) << 20);
            return "filled " + words[1];
        } else if (words[0].equals("classes")) {
            loadClasses(Integer.parseInt(words[1]));
            return "classes " + words[1];
        } else if (words[0].equals("oom")) {
            runOutOfMemory(words.length > 1 ? words[1] : "leaky-worker");
            return "oom " + errors;
        } else if (words[0].equals("dump")) {
            diagnostics().dumpHeap(words[1], words.length < 3);
            return "dumped " + words[1];
        } else if (words[0].equals("option")) {
            diagnostics().setVMOption(words[1], words[2]);
            return "option " + words[1] + " " + words[2];
        } else if (words[0].equals("gc")) {
            System.gc();
            return "gc";
        } else if (words[0].equals("direct")) {
            for (int i = 0; i < Integer.parseInt(words[1]); i++) {
                KEPT.add(java.nio.ByteBuffer.allocateDirect(1 << 20));
            }
            return "direct " + words[1];
        } else if (words[0].equals("native")) {
            leakNative(Integer.parseInt(words[1]));
            return "native " + words[1];
        } else if (words[0].equals("exit")) {
            System.exit(0);
        }
        return "unknown command " + words[0];
    }

    public static void main(String[] args) throws Exception {
        if (args.length > 0 && args[0].equals("die")) {
            leakUntilFull();
        }
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        System.out.println("> ready");
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String reply;
            try {
                reply = answer(line.split(" "));
            } catch (Exception error) {
                reply = "failed " + error;
            }
            // HotSpot's own words go to standard output too ("Dumping heap to ..."): ours are marked.
            System.out.println("> " + reply);
        }
    }
}
