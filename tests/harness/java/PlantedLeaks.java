import com.sun.management.HotSpotDiagnosticMXBean;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.lang.management.ManagementFactory;
import java.lang.ref.SoftReference;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** Plants one leak, writes a heap dump, and ends: `java PlantedLeaks LEAK MIB PATH`. */
public final class PlantedLeaks {
    /** What is leaked: 1 KiB each. */
    static class Payload {
        final byte[] content = new byte[1000];
        final int number;

        Payload(int number) {
            this.number = number;
        }
    }

    static class Session {
        final String user;
        final Payload payload;

        Session(int number) {
            user = "user " + number;
            payload = new Payload(number);
        }
    }

    static class SessionStore {
        final Map<String, Session> sessions = new ConcurrentHashMap<String, Session>();
    }

    interface Listener {
        void changed();
    }

    static class EventBus {
        final List<Listener> listeners = new CopyOnWriteArrayList<Listener>();
    }

    static class Window implements Listener {
        final Payload payload = new Payload(1);

        public void changed() {
            payload.content[0]++;
        }
    }

    static class Task implements Runnable {
        final Payload payload = new Payload(2);

        public void run() {
            payload.content[0]++;
        }
    }

    static class Link {
        final Payload payload = new Payload(3);
        Link next;
    }

    static class Finalized {
        final Payload payload = new Payload(4);

        @Override
        protected void finalize() {
            payload.content[0]++;
            try {
                Thread.sleep(3600000);
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
            }
        }
    }

    static class Context {
        final List<Payload> items = new ArrayList<Payload>();
    }

    static class SoftCache {
        final Map<Integer, SoftReference<Payload>> entries = new LinkedHashMap<Integer, SoftReference<Payload>>();
    }

    /** Defined anew by each PluginLoader. */
    public static class Plugin {
        public static byte[] cache;
    }

    static class PluginLoader extends ClassLoader {
        PluginLoader() {
            super(PlantedLeaks.class.getClassLoader());
        }

        Class<?> define() throws Exception {
            InputStream in = PlantedLeaks.class.getResourceAsStream("PlantedLeaks$Plugin.class");
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            int each;
            while ((each = in.read()) >= 0) {
                out.write(each);
            }
            return defineClass("PlantedLeaks$Plugin", out.toByteArray(), 0, out.size());
        }
    }

    static class ByName {
        static final Map<String, Payload> BY_NAME = new HashMap<String, Payload>();
    }

    static class ByNumber {
        static final Map<Integer, Payload> BY_NUMBER = new HashMap<Integer, Payload>();
    }

    static class Inbox {
        static final List<ByteBuffer> BUFFERS = new ArrayList<ByteBuffer>();
    }

    static final Map<Integer, Payload> CACHE = new HashMap<Integer, Payload>();
    static final SessionStore STORE = new SessionStore();
    static final EventBus BUS = new EventBus();
    static final SoftCache SOFT = new SoftCache();
    static final ThreadLocal<Context> CONTEXT = new ThreadLocal<Context>();
    static final List<ClassLoader> PLUGINS = new ArrayList<ClassLoader>();
    static ExecutorService pool;
    static Link head;

    public static void main(String[] args) throws Exception {
        int count = Integer.parseInt(args[1]) * 1000;
        if (args[0].equals("local")) {
            local(count, args[2]);
        } else {
            plant(args[0], count);
            dump(args[2]);
        }
        System.out.println("dumped");
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    static void local(int count, String path) throws Exception {
        List<Payload> working = new ArrayList<Payload>();
        for (int each = 0; each < count; each++) {
            working.add(new Payload(each));
        }
        dump(path);
        System.out.println(working.size());
    }

    static void plant(String leak, int count) throws Exception {
        final CountDownLatch filled = new CountDownLatch(4);
        if (leak.equals("threadlocal")) {
            pool = Executors.newFixedThreadPool(4);
            final int share = count / 4;
            for (int thread = 0; thread < 4; thread++) {
                pool.execute(new Runnable() {
                    public void run() {
                        Context context = new Context();
                        for (int each = 0; each < share; each++) {
                            context.items.add(new Payload(each));
                        }
                        CONTEXT.set(context);
                        filled.countDown();
                        try {
                            filled.await();
                        } catch (InterruptedException error) {
                            Thread.currentThread().interrupt();
                        }
                    }
                });
            }
            filled.await();
            Thread.sleep(200);
            return;
        }
        if (leak.equals("queue")) {
            pool = Executors.newFixedThreadPool(1);
            pool.execute(new Runnable() {
                public void run() {
                    try {
                        Thread.sleep(3600000);
                    } catch (InterruptedException error) {
                        Thread.currentThread().interrupt();
                    }
                }
            });
        }
        for (int each = 0; each < count; each++) {
            if (leak.equals("map")) {
                CACHE.put(each, new Payload(each));
            } else if (leak.equals("sessions")) {
                STORE.sessions.put("session-" + each, new Session(each));
            } else if (leak.equals("queue")) {
                pool.execute(new Task());
            } else if (leak.equals("listeners")) {
                if (each % 10 == 0) {
                    Window window = new Window();
                    for (int more = 0; more < 9; more++) {
                        window.payload.content[more] = 1;
                    }
                    BUS.listeners.add(window);
                }
            } else if (leak.equals("list")) {
                Link link = new Link();
                link.next = head;
                head = link;
            } else if (leak.equals("loaders")) {
                if (each % 100 == 0) {
                    PluginLoader loader = new PluginLoader();
                    loader.define().getField("cache").set(null, new byte[100000]);
                    PLUGINS.add(loader);
                }
            } else if (leak.equals("buffers")) {
                Inbox.BUFFERS.add(ByteBuffer.allocate(1000));
            } else if (leak.equals("finalizer")) {
                new Finalized();
            } else if (leak.equals("soft")) {
                SOFT.entries.put(each, new SoftReference<Payload>(new Payload(each)));
            } else if (leak.equals("shared")) {
                Payload payload = new Payload(each);
                ByName.BY_NAME.put("name " + each, payload);
                ByNumber.BY_NUMBER.put(each, payload);
            } else {
                throw new IllegalArgumentException(leak);
            }
        }
        if (leak.equals("finalizer")) {
            System.gc();
            Thread.sleep(300);
        }
    }

    static void dump(String path) throws Exception {
        ManagementFactory.getPlatformMXBean(HotSpotDiagnosticMXBean.class).dumpHeap(path, false);
    }
}
