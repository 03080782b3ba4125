import com.sun.management.HotSpotDiagnosticMXBean;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.Timer;
import java.util.TimerTask;
import java.util.TreeMap;
import java.util.WeakHashMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.DelayQueue;
import java.util.concurrent.Delayed;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/** Plants one leak of a kind that whoever wrote the rules did not have in mind, writes a heap dump, and ends: `java BlindLeaks LEAK MIB PATH`. */
public final class BlindLeaks {
    enum Registry {
        INSTANCE;

        final Map<String, byte[]> entries = new HashMap<String, byte[]>();
    }

    static final class Tenant {
        final byte[] state = new byte[1000];
    }

    static final class Cached {
        final Tenant back;
        final byte[] content = new byte[1000];

        Cached(Tenant back) {
            this.back = back;
        }
    }

    /** The value leads back to its key, so that no entry ever goes. */
    static final class TenantCache {
        static final Map<Tenant, Cached> BY_TENANT = new WeakHashMap<Tenant, Cached>();
    }

    static final class Ranking {
        static final ConcurrentSkipListMap<Integer, byte[]> SCORES = new ConcurrentSkipListMap<Integer, byte[]>();
    }

    static final class Reminders {
        static final Timer TIMER = new Timer("reminders", true);

        static TimerTask remind(final byte[] text) {
            return new TimerTask() {
                public void run() {
                    text[0]++;
                }
            };
        }
    }

    static final class Poller extends Thread {
        final List<byte[]> received = new ArrayList<byte[]>();
        private final CountDownLatch filled = new CountDownLatch(1);
        private final int mib;

        Poller(int mib) {
            super("poller");
            this.mib = mib;
            setDaemon(true);
        }

        public void run() {
            for (int i = 0; i < mib * 1000; i++) {
                received.add(new byte[1000]);
            }
            filled.countDown();
            try {
                new CountDownLatch(1).await();
            } catch (InterruptedException end) {
                return;
            }
        }
    }

    /** Its inner class holds it, and so all that it has. */
    static final class Screen {
        final byte[] pixels = new byte[1000];

        final class Click implements Runnable {
            public void run() {
                pixels[0]++;
            }
        }
    }

    static final class Clicks {
        static final List<Runnable> HANDLERS = new ArrayList<Runnable>();
    }

    static final class Suppliers {
        static final List<Supplier<Integer>> LATER = new ArrayList<Supplier<Integer>>();
    }

    static final class Audit {
        static final CompletableFuture<String> FIRST = new CompletableFuture<String>();
    }

    static final class Grid {
        static final byte[][][] CELLS = new byte[64][][];
    }

    static final class Recent {
        final ArrayDeque<byte[]> history = new ArrayDeque<byte[]>();
    }

    static final class Service {
        static final Recent RECENT = new Recent();
    }

    static final class Perclass {
        static final ClassValue<List<byte[]>> FACTS = new ClassValue<List<byte[]>>() {
            protected List<byte[]> computeValue(Class<?> of) {
                return new ArrayList<byte[]>();
            }
        };
    }

    static final class Later implements Delayed {
        final byte[] content = new byte[1000];

        public long getDelay(TimeUnit unit) {
            return 1000000;
        }

        public int compareTo(Delayed other) {
            return 0;
        }
    }

    static final class Retries {
        static final DelayQueue<Later> QUEUE = new DelayQueue<Later>();
    }

    static final class Jobs {
        static final ScheduledExecutorService SCHEDULER = Executors.newScheduledThreadPool(1, work -> {
            Thread thread = new Thread(work, "scheduler");
            thread.setDaemon(true);
            return thread;
        });
    }

    enum Level {
        LOW, HIGH
    }

    static final class Alerts {
        static final EnumMap<Level, List<byte[]>> BY_LEVEL = new EnumMap<Level, List<byte[]>>(Level.class);
    }

    static final class Node {
        Node left;
        Node right;
        final byte[] content = new byte[1000];
    }

    /** A tree of the application's own, filled at random. */
    static final class Index {
        static Node root;

        static void add(java.util.Random chance) {
            Node added = new Node();
            if (root == null) {
                root = added;
                return;
            }
            Node at = root;
            while (true) {
                if (chance.nextBoolean()) {
                    if (at.left == null) {
                        at.left = added;
                        return;
                    }
                    at = at.left;
                } else {
                    if (at.right == null) {
                        at.right = added;
                        return;
                    }
                    at = at.right;
                }
            }
        }
    }

    static final class Texts {
        static final StringBuilder LOG = new StringBuilder();
    }

    static final class Inherited {
        static final InheritableThreadLocal<List<byte[]>> CONTEXT = new InheritableThreadLocal<List<byte[]>>();
    }

    static final class Shutdown {
        static Thread hook(final List<byte[]> kept) {
            return new Thread("hook") {
                public void run() {
                    kept.clear();
                }
            };
        }
    }

    private static void plant(String leak, int mib) throws Exception {
        int many = mib * 1000;
        switch (leak) {
            case "enum":
                for (int i = 0; i < many; i++) Registry.INSTANCE.entries.put("key " + i, new byte[1000]);
                break;
            case "weakmap":
                for (int i = 0; i < many / 2; i++) {
                    Tenant tenant = new Tenant();
                    TenantCache.BY_TENANT.put(tenant, new Cached(tenant));
                }
                break;
            case "skiplist":
                for (int i = 0; i < many; i++) Ranking.SCORES.put(i, new byte[1000]);
                break;
            case "timer":
                for (int i = 0; i < many; i++) Reminders.TIMER.schedule(Reminders.remind(new byte[1000]), 100000000L);
                break;
            case "thread":
                Poller poller = new Poller(mib);
                poller.start();
                poller.filled.await();
                break;
            case "inner":
                for (int i = 0; i < many; i++) Clicks.HANDLERS.add(new Screen().new Click());
                break;
            case "lambda":
                for (int i = 0; i < many; i++) {
                    byte[] captured = new byte[1000];
                    Suppliers.LATER.add(() -> captured.length);
                }
                break;
            case "future":
                for (int i = 0; i < many; i++) {
                    byte[] captured = new byte[1000];
                    Audit.FIRST.thenApply(text -> text + captured.length);
                }
                break;
            case "grid":
                for (int i = 0; i < 64; i++) {
                    Grid.CELLS[i] = new byte[many / 64][];
                    for (int j = 0; j < many / 64; j++) Grid.CELLS[i][j] = new byte[1000];
                }
                break;
            case "deque":
                for (int i = 0; i < many; i++) Service.RECENT.history.add(new byte[1000]);
                break;
            case "classvalue":
                for (int i = 0; i < many; i++) Perclass.FACTS.get(Service.class).add(new byte[1000]);
                break;
            case "delays":
                for (int i = 0; i < many; i++) Retries.QUEUE.add(new Later());
                break;
            case "scheduler":
                for (int i = 0; i < many; i++) {
                    byte[] captured = new byte[1000];
                    Jobs.SCHEDULER.schedule(() -> captured[0]++, 100, TimeUnit.DAYS);
                }
                break;
            case "enummap":
                Alerts.BY_LEVEL.put(Level.HIGH, new ArrayList<byte[]>());
                for (int i = 0; i < many; i++) Alerts.BY_LEVEL.get(Level.HIGH).add(new byte[1000]);
                break;
            case "tree":
                java.util.Random chance = new java.util.Random(7);
                for (int i = 0; i < many; i++) Index.add(chance);
                break;
            case "text":
                for (int i = 0; i < many; i++) Texts.LOG.append(new String(new char[1000]).replace('\0', 'x'));
                break;
            case "inherited":
                Inherited.CONTEXT.set(new ArrayList<byte[]>());
                for (int i = 0; i < many; i++) Inherited.CONTEXT.get().add(new byte[1000]);
                break;
            case "hook":
                List<byte[]> kept = new ArrayList<byte[]>();
                for (int i = 0; i < many; i++) kept.add(new byte[1000]);
                Runtime.getRuntime().addShutdownHook(Shutdown.hook(kept));
                break;
            default:
                throw new IllegalArgumentException(leak);
        }
    }

    public static void main(String[] words) throws Exception {
        plant(words[0], Integer.parseInt(words[1]));
        ManagementFactory.newPlatformMXBeanProxy(
                ManagementFactory.getPlatformMBeanServer(),
                "com.sun.management:type=HotSpotDiagnostic",
                HotSpotDiagnosticMXBean.class)
            .dumpHeap(words[2], true);
        Runtime.getRuntime().halt(0);
    }
}
